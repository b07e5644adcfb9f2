"""``--noise``: a type of the user's own, named on the command line or handed to ``scan``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import noisy
from varshift_cli import recalibrate, scan
from varshift_cli.errors import UsageError
from varshift_cli.pipeline import scan_checkpoint
from varshift_cli.records import Report, ScanRequest

SOURCE = '''
import torch
from torch import nn


class Jitter(nn.Module):
    """Noise that no list of names holds."""

    def forward(self, x):
        return x * (1 + 0.5 * torch.randn_like(x)) if self.training else x


def build():
    return nn.Sequential(Jitter(), nn.BatchNorm1d(6))


def helper():
    pass
'''


@pytest.fixture
def scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Scan a net whose noise lives in model.py."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(SOURCE, encoding="utf-8")
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Identity(), nn.BatchNorm1d(6)).state_dict(), "model.pt")
    np.savez("calib.npz", x=np.random.default_rng(0).normal(size=(500, 6)).astype("float32"))

    def run(*noise: str) -> Report:
        return scan_checkpoint(
            ScanRequest("model.pt", arch="model.py:build", data="calib.npz", noise=noise)
        )

    return run


def test_a_registered_type_is_measured(scanned) -> None:
    """The type is found although --arch and --noise each import the file for themselves."""
    report = scanned("model.py:Jitter")
    (dropout,) = report.dropouts
    assert (dropout.name, dropout.kind, dropout.p, dropout.reaches) == ("0", "Jitter", None, ("1",))
    assert report.layers[0].factors.dropout == pytest.approx(1 / 1.25, rel=0.03)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("model.py:Jiter", "model.py has no 'Jiter'"),
        ("model.py:helper", "is a function, not a subclass of torch.nn.Module"),
        ("model.py", "names no function or class"),
        ("torch.nn:Bilinear", "the model has no layer of this type"),
    ],
)
def test_slips_are_told(scanned, spec: str, message: str) -> None:
    """What is no module type, or is none of the model's, is refused with what there is."""
    with pytest.raises(UsageError, match=message) as caught:
        scanned(spec)
    assert caught.value.hint


def test_live() -> None:
    """``scan`` and ``recalibrate`` take the types themselves."""
    torch.manual_seed(0)
    model, x = nn.Sequential(noisy.Jitter(), nn.BatchNorm1d(6)), torch.randn(200, 6)
    assert scan(model, x, noise=[noisy.Jitter]).dropouts[0].kind == "Jitter"
    assert recalibrate(model, x, noise=[noisy.Jitter]).residual < 1e-5
    with pytest.raises(UsageError, match="no layer of this type"):
        scan(model, x, noise=[nn.Bilinear])
