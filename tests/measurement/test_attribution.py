"""Shares of single dropouts: they add up, repeat, and agree with closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import ConvNet, Mlp, warmed_up
from varshift_cli import scan
from varshift_cli.records import LayerRecord, Report, SilentProgress
from varshift_cli.report import to_json


class Two(nn.Module):
    """Two dropouts on two inputs that meet in one BN: by sum, or side by side."""

    def __init__(self, features: int = 30, p: float = 0.5, q: float = 0.2, *, cat: bool = False):
        super().__init__()
        self.first, self.second = nn.Dropout(p), nn.Dropout(q)
        self.cat = cat
        self.bn = nn.BatchNorm1d(2 * features if cat else features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2F) -> (N, F), or (N, 2F)."""
        left, right = x.chunk(2, dim=1)
        left, right = self.first(left), self.second(right)
        out: Tensor = self.bn(torch.cat([left, right], 1) if self.cat else left + right)
        return out


class Remarks(SilentProgress):
    """Keeps what is said and which stages are run."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.stages: list[str] = []
        self.steps = 0

    def start(self, stage: str, total: int) -> None:
        """Keep the stage."""
        self.stages.append(stage)

    def advance(self, steps: int = 1) -> None:
        """Count the passes of the attribution."""
        self.steps += steps if self.stages[-1] == "attribution" else 0

    def remark(self, text: str) -> None:
        """Keep the remark."""
        if text.startswith("attribution"):
            assert "attribution" not in self.stages, "the cost is said beforehand"
        self.said.append(text)


def net(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    if kind == "conv":
        x = torch.randn(256, 3, 6, 6) + 0.3
        return warmed_up(ConvNet(), x), x
    if kind == "mlp":
        x = torch.randn(512, 12)
        return warmed_up(Mlp(depth=4), x), x
    x = torch.randn(1000, 60) * torch.linspace(0.7, 1.4, 60) + 0.4
    return warmed_up(Two(cat=kind == "cat"), x), x


def attributed(report: Report) -> list[LayerRecord]:
    return [layer for layer in report.layers if layer.attribution is not None]


def test_shares_and_residual_add_up() -> None:
    """Sum of shares + residual = ln of the dropout factor to 1e-6, in the JSON too."""
    seen = 0
    for kind in ("conv", "mlp", "sum", "cat"):
        model, x = net(kind)
        for layer in json.loads(to_json(scan(model, list(x.split(64)))))["layers"]:
            if layer["attribution"] is None:
                assert layer["attribution_residual"] is None
                continue
            total = math.fsum(each["share"] for each in layer["attribution"])
            total += layer["attribution_residual"]
            assert total == pytest.approx(math.log(layer["factors"]["dropout"]), abs=1e-6)
            seen += 1
    assert seen >= 5


@pytest.mark.parametrize("kind", ["sum", "cat"])
def test_shares_are_those_of_the_closed_form(kind: str) -> None:
    """Two dropouts on independent inputs: ln(v / (v + p/(1-p) E[x_i^2])) each, on the data."""
    model, x = net(kind)
    (layer,) = scan(model, list(x.split(100))).layers
    left, right = x.double().chunk(2, dim=1)
    inputs = torch.cat([left, right], 1) if kind == "cat" else left + right
    zero = torch.zeros_like(left)
    parts = {
        "first": torch.cat([left, zero], 1) if kind == "cat" else left,
        "second": torch.cat([zero, right], 1) if kind == "cat" else right,
    }
    assert layer.attribution is not None
    assert [share.name for share in layer.attribution] == ["first", "second"]
    for share, p in zip(layer.attribution, (0.5, 0.2), strict=True):
        extra = p / (1 - p) * parts[share.name].square().mean(0)
        expected = float((inputs.var(0) / (inputs.var(0) + extra)).log().mean())
        assert share.error is not None
        assert share.error < 0.03
        assert share.share == pytest.approx(expected, abs=3 * share.error)


def test_shares_repeat_across_seeds_within_their_error() -> None:
    """Twelve seeds of masks: shares spread no more than their standard errors say."""
    model, x = net("mlp")
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(12):
        for layer in attributed(scan(model, x, seed=seed)):
            for share in layer.attribution or ():
                assert share.error is not None
                runs.setdefault((layer.name, share.name), []).append((share.share, share.error))
    assert len(runs) >= 4
    inside = total = 0
    for values in runs.values():
        shares = torch.tensor([share for share, _ in values], dtype=torch.float64)
        errors = torch.tensor([error for _, error in values], dtype=torch.float64)
        inside += int(((shares - shares.mean()).abs() <= 2 * errors).sum())
        total += len(values)
        assert float(shares.std()) <= 1.3 * float(errors.mean())
    assert inside >= 0.95 * total


def test_second_opinion_agrees_where_effects_add() -> None:
    """Where effects add in variance, half of on-alone and off-alone lies within 0.2 of a share."""
    model, x = net("mlp")
    for layer in attributed(scan(model, x)):
        for share in layer.attribution or ():
            assert share.second is not None
            assert share.second == pytest.approx(share.share, abs=0.2)


class TwiceInSeries(nn.Module):
    """One dropout module called twice in a row, and a BN behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.bn = nn.Dropout(0.5), nn.BatchNorm1d(20)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 20) -> (N, 20)."""
        out: Tensor = self.bn(self.drop(self.drop(x)))
        return out


def test_calls_of_a_shared_dropout_are_told_apart_and_the_residual_is_theirs() -> None:
    """In series (1+t)^2 - 1 = 3 of variance against 1 and 1: shares ln 1/2 each, residual 0."""
    torch.manual_seed(0)
    x = torch.randn(1000, 20)
    (layer,) = scan(warmed_up(TwiceInSeries(), x), list(x.split(100))).layers
    assert layer.attribution is not None
    assert {share.name for share in layer.attribution} == {"drop#1", "drop#2"}
    for share in layer.attribution:
        assert share.share == pytest.approx(math.log(0.5), abs=3 * (share.error or 0))
    assert layer.attribution_residual == pytest.approx(0.0, abs=0.1)


class Gated(nn.Module):
    """The product of two drops of one value: alone each adds, jointly they add far more."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Dropout(0.5), nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(20)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 20) -> (N, 20)."""
        out: Tensor = self.bn(self.a(x) - self.b(x))
        return out


def test_effects_that_do_not_add_get_no_shares_but_a_reason() -> None:
    """a(x) - b(x) is 0 without dropout: no live ratio adds up, and the report says so."""
    torch.manual_seed(0)
    x = torch.randn(1000, 20)
    report = scan(warmed_up(Gated(), x), list(x.split(100)))
    (layer,) = report.layers
    assert layer.attribution is None
    assert layer.attribution_residual is None
    assert "do not add up" in report.unknown["layers.0.attribution"]


def test_without_dropout_there_are_no_passes_and_no_remark() -> None:
    """No dropout, or all layers fine: no extra forward, and a reason for the missing shares."""
    torch.manual_seed(0)
    x = torch.randn(200, 12)
    for p, reason in ((0.0, "no dropout"), (0.01, "beyond fine")):
        progress = Remarks()
        report = scan(warmed_up(Mlp(p=p), x, steps=200), x, progress=progress)
        assert progress.said == []
        assert "attribution" not in progress.stages
        assert reason in report.unknown["layers.0.attribution"]


def test_the_cost_is_said_beforehand_and_held() -> None:
    """As many passes as announced, at most; none with attribute=False."""
    model, x = net("conv")
    progress = Remarks()
    scan(model, list(x.split(64)), progress=progress)
    (said,) = (each for each in progress.said if each.startswith("attribution"))
    passes, rounds = 2 * 2 + 3, 1
    assert said.startswith(f"attribution: {passes} passes over 109 samples")
    assert 0 < progress.steps <= passes * rounds
    progress = Remarks()
    report = scan(model, x, attribute=False, progress=progress)
    assert progress.said == []
    assert not attributed(report)


def test_the_model_is_left_as_it_was() -> None:
    """Flags, buffers and random state are the same after passes with single dropouts."""
    model, x = net("conv")
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    assert attributed(scan(model, x))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_functional_dropout_is_named_by_its_owner() -> None:
    """``dropout#1`` of the net itself reaches bn and gets its share."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(functional.dropout(x, 0.5, self.training))
            return out

    torch.manual_seed(0)
    x = torch.randn(400, 8)
    (layer,) = scan(warmed_up(Functional(), x), x).layers
    assert layer.attribution is not None
    (share,) = layer.attribution
    assert share.name == "dropout#1"
    assert layer.dropouts[0].name == "dropout#1"


def test_a_pass_that_fails_leaves_the_scan_standing() -> None:
    """A forward that raises in the extra passes only: no shares, the reason, all else as before."""
    calls = [0]  # outside the model, whose own attributes a scan gives back

    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.bn, self.most = nn.Dropout(0.5), nn.BatchNorm1d(12), 10**6

        def forward(self, x: Tensor) -> Tensor:
            calls[0] += 1
            if calls[0] > self.most:
                raise RuntimeError("recorded for another batch size")
            out: Tensor = self.bn(self.drop(x))
            return out

    torch.manual_seed(0)
    x = torch.randn(512, 12)
    model = warmed_up(Moody(), x)
    calls[0] = 0
    expected = scan(model, x, attribute=False)
    model.most, calls[0] = calls[0], 0
    progress = Remarks()
    report = scan(model, x, progress=progress)
    assert "recorded for another batch size" in report.unknown["layers.0.attribution"]
    assert report.layers == expected.layers
    assert report.findings == expected.findings
    assert report.remedies == expected.remedies
    assert any("not tried" in said for said in progress.said)
