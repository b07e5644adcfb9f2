"""What inspect sees, in real models."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import ConvNet, OneNet, warmed_up
from varshift_cli.errors import ForwardError, NothingToMeasureError, UsageError
from varshift_cli.pipeline import inspect_checkpoint
from varshift_cli.records import Case, ScanRequest


class Odd(nn.Module):
    """One BN called twice, one never, one without statistics, one frozen, one always by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(4)
        self.twice = nn.BatchNorm1d(4)
        self.never = nn.BatchNorm1d(4)
        self.untracked = nn.BatchNorm1d(4, track_running_stats=False)
        self.by_batch = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(functional.dropout(self.twice(self.first(x)), 0.25))
        x = self.untracked(x)
        mean, var = self.by_batch.running_mean, self.by_batch.running_var
        return self.last(functional.batch_norm(x, mean, var, training=True))


@pytest.fixture
def look(tmp_path):
    """Inspect a model saved whole, on data of a shape."""

    def inspect(net: nn.Module, *shape: int, **more: object):
        np.savez(tmp_path / "calib.npz", x=np.random.default_rng(0).random((64, *shape), "float32"))
        torch.save(net, tmp_path / "model.pt")
        given = {"data": str(tmp_path / "calib.npz"), "samples": 8, "batch_size": 8, **more}
        request = ScanRequest(str(tmp_path / "model.pt"), allow_pickle=True, **given)
        return inspect_checkpoint(request)

    return inspect


def test_order_wiring_and_places(look):
    """Calls come in execution order, with what reaches what, how, p, kind and file:line."""
    seen = look(ConvNet(), 3, 6, 6)

    assert seen.order == ("bn1", "drop", "bn2", "dropout#1", "bn3")
    links = {each.name: [(link.name, link.case) for link in each.dropouts] for each in seen.layers}
    assert links == {
        "bn1": [],
        "bn2": [("drop", Case.THROUGH_WEIGHTS)],
        "bn3": [("dropout#1", Case.STRAIGHT)],
    }
    assert [(each.name, each.kind, each.p, each.reaches) for each in seen.dropouts] == [
        ("drop", "feature_dropout", 0.4, ("bn2",)),
        ("dropout#1", "dropout", 0.4, ("bn3",)),
    ]
    assert all("nets.py:" in (each.location or "") for each in (*seen.layers, *seen.dropouts))
    assert [each.kind for each in seen.layers] == ["BatchNorm2d", "BatchNorm2d", "BatchNorm1d"]
    assert seen.layers[1].upstream == ("bn1",)
    assert (seen.samples, seen.skipped, seen.unwritten, seen.always_on) == (8, (), (), ())


def test_what_is_left_out_and_why(look):
    """What scan will not measure and fix will not write is told, each with its reason."""
    net = Odd()
    net.train()
    net.first.eval()

    seen = look(net, 4)

    skipped = {each.name: each.reason for each in seen.skipped}
    assert skipped.keys() == {"never", "untracked", "by_batch"}
    assert "no batch reached it" in skipped["never"]
    assert "no running statistics" in skipped["untracked"]
    assert "by the batch even in eval()" in skipped["by_batch"]
    unwritten = {each.name: each.reason for each in seen.unwritten}
    assert unwritten.keys() == {"first", "twice"}
    assert "called 2 times" in unwritten["twice"]
    assert "frozen" in unwritten["first"]
    assert seen.always_on == ("dropout#1",)
    assert seen.order[:4] == ("first", "twice#1", "dropout#1", "twice#2")


def test_the_model_is_left_as_it_was(look, tmp_path):
    """Nothing is written beside the file, and the file is the same."""
    look(ConvNet(), 3, 6, 6)
    before = (tmp_path / "model.pt").read_bytes()

    look(torch.load(tmp_path / "model.pt", weights_only=False), 3, 6, 6)

    assert (tmp_path / "model.pt").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["calib.npz", "model.pt"]


def test_nothing_there(look):
    """A model without BatchNorm, or whose BatchNorm no batch reaches, has nothing to show."""
    with pytest.raises(NothingToMeasureError, match="no BatchNorm layer"):
        look(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)), 4)


def test_a_forward_that_raises(look):
    """It is told in which layer, with what went in."""
    with pytest.raises(ForwardError, match="in layer 'conv1'"):
        look(ConvNet(), 3, 6)


def test_without_data(look):
    """It is said what is missing, and what the first weights seem to take."""
    with pytest.raises(UsageError, match="--data is missing") as raised:
        look(OneNet(), 3, 6, 6, data=None)

    assert raised.value.hint is not None
    assert (
        "conv1.weight (8, 3, 3, 3), seem to take (samples, 3, height, width)" in raised.value.hint
    )


def test_it_takes_seconds(look):
    """A deep net is looked at in seconds."""
    layers = [nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Dropout()) for _ in range(60)]
    net = warmed_up(nn.Sequential(*layers), torch.randn(64, 32), steps=1)
    started = time.monotonic()

    seen = look(net, 32)

    assert len(seen.layers) == 60
    assert time.monotonic() - started < 5
