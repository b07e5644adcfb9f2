"""``--train-data`` beside ``--data``: other data, or wrong buffers."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.nets import warmed_up
from varshift_cli.pipeline import scan_checkpoint
from varshift_cli.records import ScanRequest

BUILD = """
from torch import nn
def build():
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3),
    )
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A warmed-up net, the data it was warmed up on, and the same on another scale."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(BUILD)
    torch.manual_seed(0)
    x = torch.randn(400, 6) + torch.linspace(0.0, 2.0, 6)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3),
    )  # fmt: skip
    warmed_up(model, x, steps=100)
    torch.save(model.state_dict(), "model.pt")
    np.savez("train.npz", x=x.numpy())
    np.savez("other.npz", x=(4.0 * x + 3.0).numpy())
    return tmp_path


def found(**more):
    report = scan_checkpoint(
        ScanRequest("model.pt", arch="net.py:build", data="other.npz", samples=400, **more)
    )
    return report.findings[0]


def test_decided(folder):
    """Buffers that fit the training data and not the others: VS501, and no rivals."""
    first = found(train_data="train.npz")

    assert (first.code, first.rivals) == ("VS501", ())
    assert first.evidence["stale_on_train_data"] == pytest.approx([1.0], abs=0.05)


def test_not_decided_without(folder):
    """Without training data the rivals are named."""
    first = found()

    assert first.code == "VS501"
    assert any("--train-data decides" in rival for rival in first.rivals)


def test_train_data_that_do_not_fit_either(folder):
    """If the buffers do not fit the training data either, the buffers are to blame."""
    assert found(train_data="other.npz").code == "VS210"
