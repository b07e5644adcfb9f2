"""With few samples no rule on stored statistics speaks of what chance alone would show."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from tests.diagnosis.layers import layer, statistics
from tests.nets import warmed_up
from varshift_cli import scan

FEATURES = 20


def uneven(count: int, seed: int) -> Tensor:
    """Samples of very different size: all channels of a layer rise and fall with them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=generator)
    return x * torch.exp(0.7 * torch.randn(count, 1, generator=generator))


def net(p: float) -> nn.Module:
    """Sound buffers gathered with dropout on, straight before the second and third BN."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(FEATURES, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 64), nn.Dropout(p), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 64), nn.Dropout(p), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3),
    )  # fmt: skip
    for norm in (model[1], model[5], model[9]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    return warmed_up(model, uneven(4000, seed=0), steps=400)


@pytest.fixture(scope="module")
def dropped() -> nn.Module:
    return net(0.5)


@pytest.fixture(scope="module")
def sound() -> nn.Module:
    return net(0.0)


@pytest.mark.parametrize("count", [20, 40, 80])
@pytest.mark.parametrize("seed", range(1, 9))
def test_dropout_comes_first(dropped, count, seed):
    """Where dropout is planted no other cause is named, however few the samples."""
    report = scan(dropped, uneven(count, seed).split(64))

    assert {each.code for each in report.findings} <= {"VS101", "VS110"}


@pytest.mark.parametrize("count", [20, 40, 80])
@pytest.mark.parametrize("seed", range(1, 9))
def test_sound_buffers_stay_silent(sound, count, seed):
    """A sample that all channels follow counts once, not once for each channel."""
    report = scan(sound, uneven(count, seed).split(64))

    assert {each.code for each in report.findings} <= {"VS110"}


@pytest.mark.parametrize("count", [20, 40, 80])
def test_few_samples_tell_what_is_far_off(sound, count):
    """What lies far beyond chance is told by few samples as well."""
    model = deepcopy(sound)
    model[5].running_mean += 4.0 * model[5].running_var.sqrt()

    report = scan(model, uneven(count, seed=1).split(64))

    assert (report.findings[0].code, report.findings[0].layers) == ("VS210", ("5",))


def test_strength_is_what_lies_beyond_chance():
    """A finding weighs what is left without the distance that chance alone would show."""
    mean, var = statistics(uneven(100_000, seed=0)[:, :12])
    sound = layer(mean=mean, var=var, x=uneven(80, seed=1)[:, :12])
    wrong = layer(mean=mean, var=20.0 * var, x=uneven(80, seed=1)[:, :12])

    assert sound.beyond_noise < 0.2 * sound.distance
    assert 0.8 * wrong.distance < wrong.beyond_noise < wrong.distance
