"""``--forward file.py:f`` gets each batch as the loader gave it, cut or joined or not."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.nets import Mlp, warmed_up
from varshift_cli import DataError, correct, recalibrate, scan
from varshift_cli.integrations import ShiftMonitor
from varshift_cli.pipeline import fix_checkpoint, scan_checkpoint
from varshift_cli.records import FixRequest, Report, ScanRequest

CODE = """
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


def figures(report: Report) -> list[tuple[float, float]]:
    return [(layer.signed or 0.0, layer.factors.dropout or 0.0) for layer in report.layers]


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
        ("calib.npz", "from_tensor"),
    ],
)
def test_the_loaders_own_batch(folder: Path, data: str, forward: str) -> None:
    """Tuples, dicts, nested, numpy: the same figures and labels as by the ordinary call."""
    report = scan_checkpoint(request(data, forward))
    plain = scan_checkpoint(request("calib.npz", None))
    np.testing.assert_allclose(
        [each for each, _ in figures(report)], [each for each, _ in figures(plain)], rtol=1e-5
    )
    # Masks are bound to what a sample holds, so that dropout is the same noise drawn afresh.
    np.testing.assert_allclose(
        [each for _, each in figures(report)], [each for _, each in figures(plain)], rtol=0.15
    )
    assert accuracies(report) == accuracies(plain)


@pytest.mark.parametrize(("data", "forward"), [("tuples", "from_tuple"), ("dicts", "from_dict")])
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
