"""A model built with another dropout probability than it was trained with."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.diagnosis.layers import CHANNELS, layer, moments, statistics, values
from varshift_cli import Describe, Report, recalibrate, scan
from varshift_cli.diagnosis.buffers import describe_buffers, other_dropout
from varshift_cli.measurement import LayerMoments
from varshift_cli.pipeline import fix_checkpoint
from varshift_cli.records import FixRequest, ScanRequest

CODE = """
from tests.diagnosis.test_other_dropout import Net
"""


class Net(nn.Module):
    """(N, 12) -> (N, 4): two BN behind dropout and weights, and a noisy one behind few values."""

    def __init__(self, p: float = 0.4, q: float | None = None) -> None:
        super().__init__()
        last = p if q is None else q
        self.layers = nn.Sequential(
            *(nn.Linear(12, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(p)),
            *(nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(p)),
            *(nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(last)),
            *(nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def gathered(p: float, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A net whose buffers are those of many batches with this p, and its data."""
    torch.manual_seed(seed)
    net, x = Net(p).train(), torch.randn(768, 12)
    with torch.no_grad():
        for _ in range(80):
            net(x[torch.randint(len(x), (256,))])
    return net.eval(), x


def with_p(net: nn.Module, *p: float) -> nn.Module:
    """A copy whose dropouts have these probabilities."""
    other = copy.deepcopy(net)
    found = [each for each in other.modules() if isinstance(each, nn.Dropout)]
    for index, each in enumerate(found):
        each.p = p[index % len(p)]
    return other


def rivals(report: Report) -> list[str]:
    """What findings say of the probability of dropout."""
    told = [rival for each in report.findings for rival in each.rivals]
    return [rival for rival in told if "dropout probability" in rival]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("trained", "today"), [(0.1, 0.4), (0.2, 0.4), (0.25, 0.6)])
def test_another_probability_is_the_first_candidate(
    trained: float, today: float, seed: int
) -> None:
    """Never called repaired; VS210 names it first, with the p of training."""
    net, x = gathered(trained, seed)
    report = scan(with_p(net, today), [x])
    assert report.buffers.describe is not Describe.CLEAN
    (found,) = (each for each in report.findings if each.code == "VS210")
    assert found.rivals[0] == rivals(report)[0]
    assert found.rivals[0].endswith(f"fits, not {today:g}")
    assert found.evidence["probability"] == pytest.approx(trained, abs=0.05)
    if report.buffers.describe is Describe.UNKNOWN:
        assert report.unknown["buffers.describe"] == found.rivals[0]


@pytest.mark.parametrize("seed", range(3))
def test_too_few_updates_have_it_as_a_rival(seed: int) -> None:
    """More dropout in training: variances above T, but below 1, look as if on their way from 1."""
    net, x = gathered(0.4, seed)
    report = scan(with_p(net, 0.25), [x])
    assert {"VS204", "VS210"} & {each.code for each in report.findings}
    (told,) = rivals(report)
    assert "p about 0.4 fits" in told.replace("0.39", "0.4").replace("0.40", "0.4")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_same_probability_is_none(p: float, seed: int) -> None:
    """With dropout as in training, or after a repair, nothing is said of its probability."""
    net, x = gathered(p, seed)
    assert rivals(scan(net, [x])) == []
    repaired = with_p(net, 0.4)
    recalibrate(repaired, [x])
    report = scan(repaired, [x])
    assert report.buffers.describe is Describe.CLEAN
    assert rivals(report) == []


def test_of_several_probabilities_none_is_named() -> None:
    """Dropouts that differ have no p in common: the factor on p/(1-p) is told alone."""
    net, x = gathered(0.2)
    (told,) = rivals(scan(with_p(net, 0.4, 0.45), [x]))
    assert ": p/(1-p) times about 0.3" in told


def test_fix_does_not_call_it_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to exit with nothing to repair; now the reason begins at the probability."""
    monkeypatch.chdir(tmp_path)
    net, x = gathered(0.2)
    torch.save(net.state_dict(), "m.pt")
    np.savez("calib.npz", x=x.numpy())
    Path("code.py").write_text(CODE, encoding="utf-8")
    request = ScanRequest("m.pt", arch="code.py:Net", data="calib.npz")
    record = fix_checkpoint(FixRequest(request, method="auto", dry_run=True))
    assert record.status != "nothing_to_repair"
    assert record.reason is not None
    assert "First see if it is another dropout probability than in training" in record.reason


def made(factor: float, effect: Tensor, *, seed: int, noise: float = 0.0) -> LayerMoments:
    """A layer whose T is C (1 + effect), and its R is C (1 + factor effect), with noise."""
    clean = values(seed)
    generator = torch.Generator().manual_seed(seed)
    scatter = noise * torch.randn(CHANNELS, generator=generator)
    _, var = statistics(clean)
    held = layer(f"bn{seed}", x=clean, var=var * (1.0 + factor * effect) * scatter.exp()).layer
    return replace(held, train=moments(clean * (1.0 + effect).sqrt()[:, None]))


def effects(seed: int, scale: float = 0.05) -> Tensor:
    """Of dropout on the variance, by channel."""
    generator = torch.Generator().manual_seed(100 + seed)
    return 0.3 + scale * torch.randn(CHANNELS, generator=generator)


def test_a_noisy_layer_does_not_hide_the_others() -> None:
    """One layer of wide effects and noisy buffers pulls the slope to 0; the others tell."""
    wide = made(0.0, effects(9, 0.4), seed=9, noise=0.3)
    found, reason = describe_buffers([*(made(0.4, effects(s), seed=s) for s in range(3)), wide])
    assert found.slope is not None
    assert found.slope < 0.25
    assert found.describe is Describe.UNKNOWN
    assert reason is not None
    assert "another dropout probability" in reason


def test_what_moves_layers_as_a_whole_is_no_probability() -> None:
    """Repaired, then other data: R is off C by a factor of each layer, alike in its channels."""
    layers = [made(0.0, effects(s), seed=s) for s in range(3)]
    moved = [
        replace(each, site=replace(each.site, running_var=each.site.running_var * factor))
        for each, factor in zip(layers, (1.12, 1.1, 1.13), strict=True)
    ]
    assert other_dropout(moved) is None
    assert describe_buffers(moved)[0].describe is Describe.CLEAN


@pytest.mark.parametrize(("factor", "known"), [(0.4, True), (1.6, True), (0.0, False), (1, False)])
def test_one_layer(factor: float, known: bool) -> None:
    """A single layer tells it where its channels say as much as its average."""
    found = other_dropout([made(factor, effects(0, 0.15), seed=0)])
    assert (found is not None) is known
    if found is not None:
        assert found.factor == pytest.approx(factor, abs=0.02)
