"""Dropout before max pooling: the mean moves, the variance hardly, and the gate says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from varshift_cli import FixDeclinedError, correct, judge_report, recalibrate, scan
from varshift_cli.diagnosis import buffers
from varshift_cli.pipeline.choice import nothing_needed
from varshift_cli.records import Policy
from varshift_cli.report import FORMATS


class Points(nn.Module):
    """(N, 3, P) -> (N, 4): pointwise layers, dropout, the maximum over points, a head with BN."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 32, 1)
        self.bn = nn.BatchNorm1d(32)
        self.drop = nn.Dropout(p)
        self.fc = nn.Linear(32, 24)
        self.bn2 = nn.BatchNorm1d(24)
        self.out = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.bn(self.conv(x)))).amax(dim=2)
        logits: Tensor = self.out(torch.relu(self.bn2(self.fc(x))))
        return logits


def clouds(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four kinds of stretched clouds of 64 points."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (rows,), generator=generator)
    scales = torch.tensor([[1, 1, 1], [2, 1, 1], [1, 2, 1], [2, 2, 1.0]])
    points = torch.randn(rows, 3, 64, generator=generator)
    return points * scales[labels][:, :, None], labels


def trained(p: float) -> nn.Module:
    torch.manual_seed(0)
    net, (x, y) = Points(p).train(), clouds(1500, 0)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 200)
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()


def test_a_mean_that_dropout_moves() -> None:
    """VS105 names the layer behind the maximum; its mean is off as measured by hand."""
    net, (x, y) = trained(0.2), clouds(500, 1)
    report = scan(net, [(x, y)])
    found = {each.code: each for each in report.findings}
    assert found["VS105"].layers == ("bn2",)
    with torch.no_grad():
        entering = net.fc(torch.relu(net.bn(net.conv(x))).amax(dim=2))
    off = (entering.mean(0) - net.bn2.running_mean) / (net.bn2.running_var + 1e-5).sqrt()
    by_hand = float(off.square().mean().sqrt())
    assert by_hand > 0.4
    assert f"off by up to {by_hand:.2f} standard deviations (bn2)" in found["VS105"].message
    assert nothing_needed(report) is None


def test_a_pass_on_variances_tells_of_means() -> None:
    """Beside PASS stands that means are off, and what would catch it."""
    report = judge_report(scan(trained(0.2), [clouds(500, 1)]), Policy(max_shift=9.0))
    shown = " ".join(FORMATS["table"].render(report).split())
    assert "PASS" in shown
    assert "means are not gated: in bn2 it is off by" in shown


def test_without_dropout_no_mean_moves() -> None:
    """The same net without dropout: no finding above a note, nothing beside PASS."""
    report = judge_report(scan(trained(0.0), [clouds(500, 1)]), Policy(max_shift=9.0))
    assert "VS105" not in {each.code for each in report.findings}
    assert "means are not gated" not in FORMATS["table"].render(report)


def test_recalibration_sets_means_right() -> None:
    """After it VS105 is gone, and accuracy on other data is back."""
    net, (x, y), (test_x, test_y) = trained(0.2), clouds(500, 1), clouds(500, 2)

    def accuracy() -> float:
        with torch.no_grad():
            return float((net.eval()(test_x).argmax(1) == test_y).double().mean())

    before = accuracy()
    recalibrate(net, [(x, y)])
    assert accuracy() > before + 0.05
    assert "VS105" not in {each.code for each in scan(net, [(x, y)]).findings}


@pytest.mark.parametrize(
    ("slope", "error", "describe"),
    [
        (1.0, 0.01, "train"),
        (0.0, 0.02, "clean"),
        (-0.34, 0.14, "clean"),
        (0.3, 0.2, "unknown"),
        (0.18, 0.11, "unknown"),
        (0.2, 0.02, "unknown"),
        (0.04, 0.05, "clean"),
        (-4.25, 1.8, "unknown"),
    ],
)
def test_buffers_are_clean_near_zero_alone(
    monkeypatch: pytest.MonkeyPatch, slope: float, error: float, describe: str
) -> None:
    """A slope far below 0 fits buffers of neither kind: nothing is called repaired by it."""
    monkeypatch.setattr(buffers, "_pair", lambda layer: layer)
    estimate = SimpleNamespace(slope=slope, error=error)
    monkeypatch.setattr(buffers, "within_layer_slope", lambda pairs: estimate)
    monkeypatch.setattr(buffers, "common_factor", lambda pairs: None)
    monkeypatch.setattr(buffers, "other_dropout", lambda layers: None)
    layer = SimpleNamespace(site=SimpleNamespace(never_updated=False))
    found, reason = buffers.describe_buffers([layer])  # type: ignore[list-item]
    assert found.describe == describe
    assert (reason is None) is (describe != "unknown")


@pytest.mark.parametrize("repair", [recalibrate, correct])
def test_no_repair_in_python_does_harm_unasked(repair: object) -> None:
    """Labels that a repair would make the network miss: refused, the buffers as before."""
    net, (x, _) = trained(0.2), clouds(500, 1)
    with torch.no_grad():
        today = net(x).argmax(1)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(FixDeclinedError, match="does harm: accuracy on these batches falls"):
        repair(net, [(x, today)])  # type: ignore[operator]
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    record = repair(net, [(x, today)], force=True)  # type: ignore[operator]
    assert record.layers
    assert not torch.equal(net.bn2.running_mean, kept["bn2.running_mean"])
