"""A scan of too few samples to tell how bad it is says so."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests import samples
from tests.nets import warmed_up
from varshift_cli import render, scan
from varshift_cli.pipeline.few import few_samples
from varshift_cli.records import Interval


def layer(shift, low, high):
    return replace(samples.shifted().layers[0], shift=shift, shift_interval=Interval(low, high))


@pytest.fixture(scope="module")
def sound():
    """A healthy net, and samples of the kind that its buffers were gathered on."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(),
        nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4),
    )  # fmt: skip
    x = torch.randn(4000, 12, generator=torch.Generator().manual_seed(1))
    return warmed_up(model, x, steps=300), x


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_very_few(sound, count):
    """Up to 8 samples leave open whether all is well or all is lost, and every format says so."""
    model, x = sound

    report = scan(model, x[:count].split(64))

    (note,) = report.notes
    assert note.startswith(f"{count} samples are few here: the worst shift may lie anywhere from ")
    for name in ("table", "markdown", "github", "sarif", "html", "json"):
        assert f"{count} samples are few here" in render(report, name)


@pytest.mark.parametrize("count", [128, 256, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_usual_numbers_are_silent(sound, count, seed):
    """A healthy net and a hundred samples or more: nothing to remark."""
    model, x = sound
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]

    assert scan(model, x[order].split(64)).notes == ()


def test_the_number_is_enough():
    """With as many samples as are named, the interval spans two levels at most."""
    wide = [layer(1.12, 1.0, 1.9), layer(1.01, 1.0, 1.2)]

    told = few_samples(wide, 16, 8)

    assert told == (
        "16 samples are few here: the worst shift may lie anywhere from 1.00 to 1.90, fine to "
        "strong; about 280 would tell"
    )

    # 32 groups of 280 samples have t 2.040, 8 groups 2.365.
    def high(number):
        return 1.12 * (1.9 / 1.12) ** (2.040 / 2.365 * (16 / number) ** 0.5)

    assert high(280) < 1.25 < high(250)


def test_four_times_as_many_at_least():
    """A little more would hardly move an interval: no less than half its width is asked for."""
    assert "; about 64 would tell" in few_samples([layer(1.1, 1.0, 1.26)], 16, 8)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([layer(3.0, 1.9, 4.7)], False),  # strong or severe: bad either way
        ([layer(3.0, 2.5, 3.6), layer(1.1, 1.0, 2.2)], False),  # severe whatever the second is
        ([layer(1.02, 1.0, 1.1), layer(1.01, 1.0, 1.3)], True),  # the second may be the worst
        ([layer(3.0, 1.2, 7.0)], True),
        ([replace(layer(3.0, 1.2, 7.0), shift_interval=None)], False),
        ([], False),
    ],
)
def test_when(layers, said):
    """It is about the level of the whole network, not about single layers."""
    assert (few_samples(layers, 40, 8) is not None) is said


def test_no_number_without_groups():
    """So few samples that they are no eight groups cannot tell how many more are wanted."""
    assert few_samples([layer(3.0, 1.0, 5e6)], 3, 3).endswith(
        "from 1.00 to over 100, fine to severe; a few hundred would do"
    )
