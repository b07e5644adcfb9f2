"""``--train-data`` beside ``--data``: other data, or wrong buffers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.nets import warmed_up
from varshift_cli import DataError, UsageError
from varshift_cli.pipeline import fix_checkpoint, scan_checkpoint
from varshift_cli.records import FixRequest, ScanRequest, SilentProgress

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


def found(data="other.npz", **more):
    report = scan_checkpoint(
        ScanRequest("model.pt", arch="net.py:build", data=data, samples=400, **more)
    )
    return report.findings[0]


def test_decided(folder):
    """Buffers that fit the training data and not the others: VS501, and no rivals."""
    first = found(train_data="train.npz")

    assert (first.code, first.rivals) == ("VS501", ())
    assert first.evidence["stale_on_train_data"] == {"1": pytest.approx(1.0, abs=0.05)}


def test_not_decided_without(folder):
    """Without training data the rivals are named."""
    first = found()

    assert first.code == "VS501"
    assert any("--train-data decides" in rival for rival in first.rivals)


def test_train_data_that_do_not_fit_either(folder):
    """If the buffers do not fit the training data either, the buffers are to blame."""
    assert found(train_data="other.npz").code == "VS210"


@pytest.mark.parametrize("size", [40, 100, 200])
@pytest.mark.parametrize("seed", range(3))
def test_both_from_the_same(folder, size, seed):
    """Stale means at the input look like other data, until training data of the kind are given."""
    whole = np.load("train.npz")["x"]
    order = np.random.default_rng(seed).permutation(len(whole))
    np.savez("half.npz", x=whole[order[:size]])
    np.savez("rest.npz", x=whole[order[-size:]])
    state = torch.load("model.pt")
    state["1.running_mean"] += 3.0 * state["1.running_var"].sqrt() * torch.linspace(-1, 1, 16)
    torch.save(state, "model.pt")

    assert found("half.npz").code == "VS501"
    decided = found("half.npz", train_data="rest.npz")
    assert decided.code == "VS210"
    assert "nor the training data" in decided.message


@pytest.mark.parametrize("size", [40, 100, 200])
def test_few_samples_of_other_data(folder, size):
    """Few samples do as well where the data really are others; layers behind go with the first."""
    whole = np.load("train.npz")["x"]
    np.savez("half.npz", x=4.0 * whole[:size] + 3.0)
    np.savez("rest.npz", x=whole[-size:])

    assert found("half.npz", train_data="rest.npz").code == "VS501"


DATA = """
import numpy as np

def train(*, offset=0.0, half=False):
    x = np.load("train.npz")["x"]
    return x[:200] + offset if half else x + offset

def other(*, scale, offset=0.0):
    return scale * np.load("train.npz")["x"] + offset

def needy(*, path):
    return np.load(path)["x"]
"""


def test_arguments_are_for_both(folder):
    """--data-arg reaches each function that has a parameter of the name."""
    (folder / "d.py").write_text(DATA)
    heard = []

    class Listening(SilentProgress):
        def remark(self, text):
            heard.append(text)

    request = ScanRequest("model.pt", arch="net.py:build", data="d.py:other", samples=400)
    request = replace(request, data_args=("scale=4", "half=true"), train_data="d.py:train")
    report = scan_checkpoint(request, Listening())
    assert report.findings[0].code == "VS501"
    assert report.calibration.data.startswith("d.py:other(scale=4)")
    assert "d.py:other takes no --data-arg half: left out" in report.notes
    assert heard == ["--train-data: d.py:train takes no --data-arg scale: left out"]
    # With an offset that only training data without it fit, the buffers fit neither.
    moved = replace(request, data_args=("scale=4", "offset=30"))
    assert scan_checkpoint(moved).findings[0].code != "VS501"


def test_arguments_may_be_for_the_train_data_alone(folder):
    """An array file takes none, nor does a function that has no such parameter; one has to."""
    (folder / "d.py").write_text(DATA)
    needed = {"train_data": "d.py:needy", "data_args": ("path=train.npz",)}
    assert found("other.npz", **needed).code == "VS501"
    with pytest.raises(UsageError, match=r"d\.py:needy needs a value for path"):
        found("other.npz", train_data="d.py:needy")
    with pytest.raises(UsageError, match=r"--data-arg has no use for the array file other\.npz"):
        found("other.npz", train_data="train.npz", data_args=("path=train.npz",))


def test_a_missing_file_is_told_by_its_option(folder):
    """An error in --train-data names that option."""
    with pytest.raises(DataError, match=r"--train-data gone\.py:f: there is no file"):
        found("other.npz", train_data="gone.py:f")


def test_arguments_do_not_stand_in_the_way_of_a_holdout(folder):
    """--data-arg is no mistake because --holdout is a file; without labels that is refused."""
    (folder / "d.py").write_text(DATA)
    scan = ScanRequest("model.pt", arch="net.py:build", data="d.py:train", data_args=("half=true",))
    with pytest.raises(UsageError, match=r"--holdout train\.npz: no repair can be scored on it"):
        fix_checkpoint(FixRequest(scan, holdout="train.npz"))
