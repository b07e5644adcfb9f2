"""Networks that return values: a repair may do harm that no shift shows, and must not pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from varshift_cli import FixDeclinedError, UsageError, scan
from varshift_cli.pipeline import fix_checkpoint, scan_checkpoint
from varshift_cli.records import FixRecord, FixRequest, ScanRequest
from varshift_cli.report import FORMATS
from varshift_cli.report.wording import effect_sentences

CODE = """
from tests.pipeline.test_regression import adapted_net

def error(outputs, targets):
    return (outputs - targets).square().mean()

def score(outputs, targets):
    return -error(outputs, targets)
"""


def adapted_net() -> nn.Module:
    """Linear, ReLU, Dropout, BN: the last layer fits its scale to what dropout leaves of it."""
    layers: list[nn.Module] = []
    for inputs in (6, 48):
        layers += [nn.Linear(inputs, 48), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(48)]
    return nn.Sequential(*layers, nn.Linear(48, 1))


def drawn(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator)
    y = x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2]) + 0.5 * x[:, 3]
    return x, y[:, None]


def fitted(net: nn.Module, steps: int) -> nn.Module:
    """Trained in the ordinary way: batches of 100, dropout on.

    In float64, where rounding, which is another on every machine, leads to no other network.
    """
    x, y = (each.double() for each in drawn(3000, 0))
    optimizer = torch.optim.Adam(net.double().train().parameters(), 0.01)
    for _ in range(steps):
        rows = torch.randint(len(x), (100,))
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.float().eval()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(4)
    return fitted(adapted_net(), 500)


@pytest.fixture
def folder(trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.save(trained.state_dict(), tmp_path / "m.pt")
    for name, seed in (("calib", 0), ("heldout", 1)):
        x, y = drawn(600, seed)
        np.savez(tmp_path / f"{name}.npz", x=x.numpy(), y=y.numpy())
        np.savez(tmp_path / f"{name}-bare.npz", x=x.numpy())
    x, y = drawn(600, 0)
    np.savez(tmp_path / "other-units.npz", x=x.numpy(), y=100 * y.numpy() + 500)
    (tmp_path / "code.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(data: str = "calib.npz", **options: object) -> ScanRequest:
    return ScanRequest("m.pt", arch="code.py:adapted_net", data=data, **options)  # type: ignore[arg-type]


def fix(method: str, data: str = "calib.npz", **options: object) -> FixRecord:
    metric = options.pop("metric", None)
    return fix_checkpoint(FixRequest(request(data, metric=metric), method=method, **options))  # type: ignore[arg-type]


def test_the_harm_is_real(folder: Path, trained: nn.Module) -> None:
    """Forced, the repair leaves no shift and more than doubles the held-out error."""
    x, y = drawn(600, 1)
    record = fix("recalibrate", force=True)
    assert record.worst_after == pytest.approx(1.0, abs=1e-4)
    repaired = adapted_net()
    repaired.load_state_dict(torch.load("m.fixed.pt", weights_only=True))
    with torch.no_grad():
        was, now = (float(nn.functional.mse_loss(net.eval()(x), y)) for net in (trained, repaired))
    assert now > 2 * was


@pytest.mark.parametrize("method", ["auto", "recalibrate", "correct"])
@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("calib.npz", {}, "R2"),
        ("calib.npz", {"metric": "code.py:score"}, "score|R2"),
        ("calib-bare.npz", {}, "adapted to the shift"),
        ("calib-bare.npz", {"holdout": "heldout.npz"}, "heldout.npz"),
        ("other-units.npz", {}, "adapted to the shift|explain none of the variance"),
    ],
)
def test_no_repair_that_does_harm_is_written(
    folder: Path, method: str, data: str, options: dict[str, object], words: str
) -> None:
    """By targets, a metric, other data, or the outputs in train() alone: exit 5, no file."""
    with pytest.raises(FixDeclinedError, match=words):
        fix(method, data, **options)
    assert not [path for path in folder.iterdir() if "fixed" in path.name]


def test_scan_does_not_advise_what_does_harm(folder: Path) -> None:
    """R2 and the harm are told, the command that comes next is no plain fix, and JSON has both."""
    report = scan_checkpoint(request())
    assert report.effect is not None
    assert report.effect.r2 is not None
    told = " ".join(effect_sentences(report))
    assert "R2 0." in told
    assert "recalibration does harm: it lowers R2 beyond noise" in told
    shown = FORMATS["table"].render(report)
    assert "varshift fix m.pt --dry-run" in shown
    first = next(iter(report.remedies["VS101"]))
    assert not first.title.startswith("Recalibrate")
    assert report.remedies["VS101"][-1].title.startswith("Recalibrate, which does harm here")


def test_scan_without_targets_warns(folder: Path) -> None:
    """Without targets the outputs in train() tell that the network may have adapted."""
    report = scan_checkpoint(request("calib-bare.npz"))
    assert report.effect is not None
    assert report.effect.adapted
    assert "may have adapted to the shift" in " ".join(effect_sentences(report))
    shown = FORMATS["table"].render(report)
    assert "give --data with labels" in shown
    assert "--metric" not in shown


def test_a_net_that_gains_is_repaired() -> None:
    """BN, ReLU, Dropout: the harm is the layout's; without it nothing is said of adapting."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (6, 48):
        layers += [nn.Linear(inputs, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.5)]
    net, (x, y) = fitted(nn.Sequential(*layers, nn.Linear(48, 1)), 300), drawn(600, 0)
    report = scan(net, [(x, y)])
    assert report.effect is not None
    assert not report.effect.adapted


def test_a_metric_of_the_wrong_sign_is_refused(folder: Path) -> None:
    """A loss as --metric would choose the worst repair: perfect outputs give it away."""
    with pytest.raises(UsageError, match=r"lower for perfect outputs \(0\).*higher should"):
        scan_checkpoint(request(metric="code.py:error"))


def test_a_metric_on_targets_that_are_not_finite(folder: Path) -> None:
    """NaN from NaN targets is told as such."""
    x, y = drawn(100, 0)
    y[3] = float("nan")
    np.savez("nan.npz", x=x.numpy(), y=y.numpy())
    with pytest.raises(UsageError, match="returned NaN: the targets hold NaN"):
        scan_checkpoint(request("nan.npz", metric="code.py:score"))
    with pytest.raises(FixDeclinedError, match="the targets hold NaN"):
        fix("auto", "nan.npz")


def test_held_out_data_that_cannot_be_scored_are_refused(folder: Path) -> None:
    """--holdout without targets or metric is an error, not passed over."""
    with pytest.raises(UsageError, match=r"--holdout heldout-bare.npz.*it has no labels"):
        fix("recalibrate", holdout="heldout-bare.npz")
