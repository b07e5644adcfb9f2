"""The probes: noise that ignores eval(), noise that is not registered, other paths in train()."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import noisy
from varshift_cli import recalibrate, scan
from varshift_cli.causes import CATALOGUE
from varshift_cli.records import Finding, Report


class Net(nn.Module):
    """BN, something, Linear, BN."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.bn1, self.middle, self.bn2 = nn.BatchNorm1d(6), middle, nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.middle(self.bn1(x)))
        return out


def warmed(middle: nn.Module) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = Net(middle), torch.randn(80, 6)
    recalibrate(model.eval(), x.split(20))
    return model.eval(), x


def finding(report: Report, code: str) -> Finding | None:
    return next((each for each in report.findings if each.code == code), None)


class TorchNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class PythonNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * random.choice((0.5, 1.5)) if self.training else x  # noqa: S311


class NumpyNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(np.random.uniform(0.5, 1.5)) if self.training else x  # noqa: NPY002


class OtherPath(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=-0.5) if self.training else x


class Branch(nn.Module):
    """A function that draws, called with the flag of whoever calls it."""

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, 0.3, self.training)


def drop_path(x: Tensor, p: float, training: bool) -> Tensor:
    return x * torch.empty(len(x), 1).bernoulli_(1 - p) / (1 - p) if training else x


@pytest.mark.parametrize(
    ("middle", "told"),
    [
        (TorchNoise, "torch.randn_like in 'middle' (TorchNoise, "),
        (PythonNoise, "random"),
        (NumpyNoise, "numpy.random"),
        (Branch, "torch.bernoulli in 'middle' (Branch, "),
    ],
)
def test_noise_that_is_not_registered(middle: type[nn.Module], told: str) -> None:
    """VS121 names op, module and line; dropout and stale behind it are unknown, with the reason."""
    model, x = warmed(middle())
    report = scan(model, x.split(20))
    found = finding(report, "VS121")
    assert found is not None
    assert told in found.message
    assert finding(report, "VS120") is None
    last = report.layers[1]
    assert (last.factors.dropout, last.factors.stale) == (None, None)
    assert last.factors.inherited is not None
    assert last.shift is not None
    assert "VS121" in report.unknown["layers.1.factors.dropout"]
    assert "bn2" in found.layers
    if "torch" in told:  # where the place is known, what lies before it is not touched
        assert report.layers[0].factors.dropout == 1.0
        assert found.layers == ("bn2",)
        assert "test_probing.py:" in found.message
        assert f"--noise FILE.py:{middle.__name__}" in found.rivals[0]


def test_registered_it_is_no_finding() -> None:
    """Once its class is named, the factor is measured and the finding gone."""
    model, x = warmed(TorchNoise())
    report = scan(model, x.split(20), noise=[TorchNoise])
    assert finding(report, "VS121") is None
    assert report.layers[1].factors.dropout == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(
    "middle",
    [
        nn.Identity(),
        nn.Dropout(0.5),
        noisy.DropPath(0.3),
        noisy.DropBlock2d(0.0),
        nn.RReLU(),
        nn.Sequential(nn.Linear(6, 6), nn.AlphaDropout(0.2)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_known_noise_is_no_finding(middle: nn.Module) -> None:
    """Dropout and all noise known by its class raise neither finding."""
    model, x = warmed(middle)
    report = scan(model, x.split(20))
    assert finding(report, "VS120") is None
    assert finding(report, "VS121") is None
    assert report.layers[1].factors.dropout is not None


def test_another_path_in_train() -> None:
    """A forward that does something else in train, without chance, is told by where it shows."""
    model, x = warmed(OtherPath())
    report = scan(model, x.split(20))
    found = finding(report, "VS121")
    assert found is not None
    assert "'bn2'" in found.message
    assert found.layers == ("bn2",)


class Always(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Counting(nn.Module):
    """A state that changes at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + self.calls)


@pytest.mark.parametrize("middle", [Always, Counting])
def test_passes_in_eval_that_part(middle: type[nn.Module]) -> None:
    """VS120 names the layer at which two passes in eval() part."""
    torch.manual_seed(0)
    model, x = Net(middle()).eval(), torch.randn(80, 6)
    found = finding(scan(model, x.split(20)), "VS120")
    assert found is not None
    assert "part at 'bn2'" in found.message
    if middle is Always:
        assert "torch.randn_like in 'middle' (Always, " in found.message
    else:
        assert float(model.middle.calls) == 0.0


def test_dropout_that_ignores_eval_is_told_once() -> None:
    """F.dropout with its default flag is VS120 by its name alone."""

    class On(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(x, 0.5)

    report = scan(Net(On()).eval(), torch.randn(80, 6).split(20))
    assert [each.code for each in report.findings].count("VS120") == 1


def test_a_forward_that_wants_targets_in_train() -> None:
    """A model that cannot run in train is scanned all the same, and the report says so."""

    class Wants(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets should not be None")
            return x

    model, x = warmed(Wants())
    report = scan(model, x.split(20))
    assert "targets should not be None" in report.unknown["findings"]
    assert finding(report, "VS121") is None


def test_the_catalogue_explains_both() -> None:
    """Both codes have a text."""
    assert {"VS120", "VS121"} <= CATALOGUE.keys()
