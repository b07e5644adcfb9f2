"""``--forward file.py:f`` gets each batch as the loader gave it, cut or joined or not."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tests.nets import Mlp, warmed_up
from varshift_cli import DataError, correct, recalibrate, scan
from varshift_cli.integrations import ShiftMonitor
from varshift_cli.pipeline import draw_batches, fix_checkpoint, scan_checkpoint
from varshift_cli.records import FixRequest, Interval, Report, ScanRequest, SilentProgress
from varshift_cli.records.fields import closed

CODE = """
from dataclasses import dataclass
from typing import NamedTuple
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset
from tests.nets import Mlp

torch.manual_seed(3)
X, Y = torch.randn(120, 12), torch.randint(4, (120,))

def tuples():
    return DataLoader(TensorDataset(X, Y), batch_size=20)

def dataset():
    return TensorDataset(X, Y)

def dicts():
    return [{"signal": x, "meta": {"id": list(range(20))}, "y": y} for x, y in tuples()]

def nested():
    return [((x[:, :6], [x[:, 6:]]), "session 1", y) for x, y in tuples()]

def arrays():
    return [{"signal": x.numpy(), "y": y.numpy()} for x, y in tuples()]

class Named(NamedTuple):
    mask: torch.Tensor
    labels: torch.Tensor
    signal: torch.Tensor

@dataclass(frozen=True, slots=True)
class Record:
    signal: dict
    session: str
    target: np.ndarray
    weights: torch.Tensor | None = None

class Plain:
    def __init__(self, signal, y):
        self.signal, self.y, self.source = signal, y, "a file"

def named():
    return [Named(torch.ones_like(x), y, x) for x, y in tuples()]

def records():
    return [Record({"left": x[:, :6], "right": x[:, 6:]}, "1", y.numpy()) for x, y in tuples()]

def plain():
    return [Plain(x, y) for x, y in tuples()]

def masked():
    return [(x, y, torch.ones(20, 5)) for x, y in tuples()]

def masked_before():
    return [(x, torch.ones(20, 12), y) for x, y in tuples()]

def from_named(model, batch):
    assert type(batch) is Named
    return model(batch.signal)

def from_record(model, batch):
    assert type(batch) is Record
    assert batch.session == "1"
    assert len(batch.target) == len(batch.signal["left"])
    return model(torch.cat([batch.signal["left"], batch.signal["right"]], dim=1))

def from_plain(model, batch):
    assert type(batch) is Plain
    assert batch.source == "a file"
    return model(batch.signal)

def from_first(model, batch):
    return model(batch[0])

def from_tuple(model, batch):
    x, y = batch
    assert len(x) == len(y)
    return model(x)

def from_dict(model, batch):
    return model(batch["signal"])

def from_nested(model, batch):
    (left, (right,)), _session, _y = batch
    return model(torch.cat([left, right], dim=1))

def from_tensor(model, batch):
    return model(batch)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code.py").write_text(CODE, encoding="utf-8")
    torch.manual_seed(3)
    x, y = torch.randn(120, 12), torch.randint(4, (120,))
    torch.save(warmed_up(Mlp(), x).state_dict(), tmp_path / "m.pt")
    np.savez(tmp_path / "calib.npz", x=x.numpy(), y=y.numpy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(data: str, forward: str | None) -> ScanRequest:
    spec = data if data.endswith(".npz") else f"code.py:{data}"
    own = None if forward is None else f"code.py:{forward}"
    return ScanRequest("m.pt", arch="code.py:Mlp", data=spec, forward=own, batch_size=20)


def signed(report: Report) -> list[float]:
    return [layer.signed or 0.0 for layer in report.layers]


def by_dropout(report: Report) -> Iterator[Interval]:
    for layer in report.layers:
        assert layer.factor_intervals is not None
        assert layer.factor_intervals.dropout is not None
        yield layer.factor_intervals.dropout


def accuracies(report: Report) -> tuple[float | None, float | None]:
    assert report.effect is not None
    assert report.effect.accuracy is not None
    return report.effect.accuracy.eval, report.effect.accuracy.recalibrated


@pytest.mark.parametrize(
    ("data", "forward"),
    [
        ("tuples", "from_tuple"),
        ("dataset", "from_tuple"),
        ("dicts", "from_dict"),
        ("arrays", "from_dict"),
        ("nested", "from_nested"),
        ("named", "from_named"),
        ("records", "from_record"),
        ("plain", "from_plain"),
        ("masked", "from_first"),
        ("masked_before", "from_first"),
        ("calib.npz", "from_tensor"),
    ],
)
def test_the_loaders_own_batch(folder: Path, data: str, forward: str) -> None:
    """Tuples, dicts, nested, numpy, objects: figures and labels as by the ordinary call."""
    report = scan_checkpoint(request(data, forward))
    plain = scan_checkpoint(request("calib.npz", None))
    np.testing.assert_allclose(signed(report), signed(plain), rtol=1e-5)
    # Masks are bound to what a sample holds, so that dropout is the same noise drawn afresh.
    for found, expected in zip(by_dropout(report), by_dropout(plain), strict=True):
        assert found.low <= expected.high
        assert expected.low <= found.high
    assert accuracies(report) == accuracies(plain)


@pytest.mark.parametrize(
    ("data", "forward"),
    [("tuples", "from_tuple"), ("dicts", "from_dict"), ("records", "from_record")],
)
def test_a_fix_with_a_forward(folder: Path, data: str, forward: str) -> None:
    """Cross-fitting cuts the loader's batches, and the repair is exact."""
    record = fix_checkpoint(FixRequest(request(data, forward), method="recalibrate", force=True))
    assert record.status == "written"
    assert record.worst_after == pytest.approx(1.0, abs=1e-4)
    assert record.scores[0].samples == 120


def test_in_python() -> None:
    """scan, recalibrate, correct and the monitor hand on the batch that they were given."""
    torch.manual_seed(0)
    x = torch.randn(96, 12)
    model = warmed_up(Mlp(), x)
    batches = [{"signal": part, "y": torch.zeros(len(part)).long()} for part in x.split(32)]
    seen: list[set[str]] = []

    def forward(net: nn.Module, batch: Any) -> Tensor:
        seen.append(set(batch))
        return net(batch["signal"])

    monitor = ShiftMonitor(model, batches, every=1, forward=forward)
    assert monitor.step() is not None
    runs: list[Callable[..., object]] = [scan, correct, recalibrate]
    for run in runs:
        run(model, batches, forward=forward)
    assert set(map(frozenset, seen)) == {frozenset({"signal", "y"})}


def test_nan_is_found_in_the_inputs_of_a_whole_batch(folder: Path) -> None:
    """NaN in an input is refused with its sample; in labels it is the user's matter."""
    model = warmed_up(Mlp(), torch.randn(40, 12))

    def forward(net: nn.Module, batch: Any) -> Tensor:
        return net(batch[0])

    x = torch.randn(40, 12)
    labels = torch.full((40,), float("nan"))
    assert scan(model, [(x, labels)], forward=forward).layers
    x[7, 3] = float("nan")
    with pytest.raises(DataError, match="sample 7 holds NaN"):
        scan(model, [(x, labels)], forward=forward)
    scale = torch.tensor(float("nan"))
    with pytest.raises(DataError, match="a value holds NaN"):
        scan(model, [(torch.randn(40, 12), labels, scale)], forward=forward)


def test_odd_forms_of_whole_batches() -> None:
    """Mappings that are no dicts come as dicts; a number beside the tensors counts no samples."""
    x = torch.randn(40, 12)
    model = warmed_up(Mlp(), x)
    batches = [
        UserDict(scale=torch.tensor(2.0), x=part, y=torch.zeros(20).long()) for part in x.split(20)
    ]

    def forward(net: nn.Module, batch: Any) -> Tensor:
        return net(batch["x"])

    report = scan(model, batches, forward=forward)
    assert report.calibration.samples == 40
    assert accuracies(report)[0] is not None

    with pytest.raises(DataError, match="is a object in which no tensor was found"):
        scan(model, [object()], forward=forward)


def two_views(model: nn.Module, batch: Any) -> Tensor:
    out: Tensor = model(batch[0])
    return out


X, Y, OTHER = torch.randn(40, 12), torch.randint(4, (40,)), torch.randn(40, 3)


class TwoInputs(Mlp):
    """A net that needs two inputs."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return super().forward(x + 0 * other.sum())


@pytest.mark.parametrize(
    ("model", "batch", "entry"),
    [
        (Mlp(), (X, Y), None),
        (Mlp(), (X, Y, OTHER), 2),
        (Mlp(), (X, OTHER, Y), 2),
        (Mlp(), (X, torch.zeros_like(X), Y), 3),
        (Mlp(), (X, "session", Y), 3),
        (Mlp(), (X, torch.zeros_like(X), torch.zeros_like(X)), 2),
        (TwoInputs(), (X, OTHER, Y), 3),
        (TwoInputs(), (X, OTHER), None),
    ],
)
def test_which_entry_of_a_tuple_is_labels(
    model: nn.Module, batch: tuple[Any, ...], entry: int | None
) -> None:
    """After the inputs, the first that is shaped otherwise; said where there is more than one."""
    (found,), notes = draw_batches(model, [batch], as_given=True)
    assert found.labels is batch[1 if entry is None else entry - 1]
    assert [note.startswith(f"labels are entry {entry} of the 3") for note in notes] == (
        [] if entry is None else [True]
    )


@pytest.mark.parametrize(
    ("batch", "labels"),
    [({"x": X, "mask": OTHER}, None), ({"targets": Y, "label_names": "ab", "x": X}, Y)],
)
def test_names_tell_labels(batch: dict[str, Any], labels: Tensor | None) -> None:
    """Where entries have names, none is taken for labels that is not called so."""
    (found,), notes = draw_batches(Mlp(), [batch], as_given=True)
    assert found.labels is labels
    assert notes == ()


def test_what_was_taken_as_labels_is_reported(folder: Path) -> None:
    """In the notes of a report, from a file and in memory; a repair in memory remarks on it."""
    said = "labels are entry 2 of the 3 in each batch, of shape () a sample"
    assert said in " ".join(scan_checkpoint(request("masked", "from_first")).notes)
    model = warmed_up(Mlp(), X)
    assert said in " ".join(scan(model, [(X, Y, OTHER)], forward=two_views).notes)
    heard: list[str] = []

    class Listening(SilentProgress):
        def remark(self, text: str) -> None:
            heard.append(text)

    recalibrate(model, [(X, Y, OTHER)], forward=two_views, force=True, progress=Listening())
    assert said in " ".join(heard)


def test_a_closed_batch_is_the_users_own_form() -> None:
    """An object is made again without calling its class, and the user's own is not changed."""

    @dataclass
    class Odd:
        x: Tensor
        y: Tensor
        made: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            self.made += 1

    given = Odd(X, Y)
    (batch,), _ = draw_batches(Mlp(), [given], as_given=True)
    half = closed(
        tree_map(lambda leaf: leaf[:20] if isinstance(leaf, Tensor) else leaf, batch.args[0])
    )
    assert (type(half), half.made, len(half.x), len(half.y)) == (Odd, 1, 20, 20)
    assert given.x is X


def test_nan_in_an_object_is_found_by_field() -> None:
    """NaN in a field that is no label is refused; in a label it is the user's matter."""
    bad = X.clone()
    bad[7, 3] = float("nan")
    model = warmed_up(Mlp(), X)

    def forward(net: nn.Module, batch: Any) -> Tensor:
        out: Tensor = net(batch.x)
        return out

    for x, y in ((X, bad), (bad, X)):
        batch = SimpleNamespace(x=x, y=y)
        if x is X:
            assert scan(model, [batch], forward=forward).layers
        else:
            with pytest.raises(DataError, match="sample 7 holds NaN"):
                scan(model, [batch], forward=forward)
