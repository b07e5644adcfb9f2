"""The gate as a pull request meets it, small; tests/benchmarks/pull_request.py is the large one."""

import pytest
import torch
from torch import nn

from varshift_cli import Status, judge_report, recalibrate, scan
from varshift_cli.gate import is_settled

SEEDS = range(20)


class Net(nn.Module):
    """Two BatchNorm layers; the dropout stands behind them, or straight before the second."""

    def __init__(self, *, before):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.mix = nn.Linear(32, 32)
        self.early = nn.Dropout(0.5 if before else 0.0)
        self.bn = nn.BatchNorm1d(32)
        self.late = nn.Dropout(0.0 if before else 0.5)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        hidden = self.bn(self.early(self.mix(self.first(x)).relu()))
        return self.head(self.late(hidden.relu()))


@pytest.fixture(scope="module")
def data():
    return torch.randn(4000, 12, generator=torch.Generator().manual_seed(7))


def trained(data, *, before, seed=0):
    """An ordinary training; the step size ends near zero, so that the statistics settle."""
    torch.manual_seed(seed)
    net, labels = Net(before=before), (data[:, :6].sum(1) > 0).long()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 100)
    for step in range(100):
        rows = torch.arange(step * 500, (step + 1) * 500) % len(data)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return net


@pytest.fixture(scope="module")
def base(data):
    """main: dropout behind all BatchNorm; its report is the baseline."""
    return scan(trained(data, before=False), data.split(500), samples=None)


@pytest.fixture(scope="module")
def moved(data):
    """The pull request: the dropout straight before a BatchNorm, trained again."""
    return trained(data, before=True)


def test_fails_naming_the_layer_and_passes_once_repaired(base, moved, data):
    """A dropout moved before BatchNorm fails and is named; recalibrated, the same net passes."""
    failed = judge_report(
        scan(moved, data.split(500), samples=None), max_shift=1.25, baseline=base
    ).verdict
    repaired = trained(data, before=True)
    recalibrate(repaired, data.split(500))
    passed = judge_report(
        scan(repaired, data.split(500), samples=None), max_shift=1.25, baseline=base
    ).verdict

    assert judge_report(base, max_shift=1.25).verdict.status is Status.PASS
    assert (failed.status, failed.worst_layer) == (Status.FAIL, "bn")
    assert failed.baseline.worse == ("bn",)
    assert passed.status is Status.PASS


def reports_of_noise(net, data, samples=200):
    """Scans of the same net with other samples and other dropout masks."""
    for seed in SEEDS:
        rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:samples]
        yield scan(net, data[rows].split(50), seed=seed)


@pytest.mark.parametrize("max_shift", [1.25, None])
@pytest.mark.parametrize("where", ["healthy", "moved"])
def test_noise_never_flips_the_verdict(base, moved, data, where, max_shift):
    """Over 20 draws of other samples a verdict may become undecided, never its opposite."""
    net = trained(data, before=False) if where == "healthy" else moved

    verdicts = [
        judge_report(report, max_shift=max_shift, baseline=base).verdict.status
        for report in reports_of_noise(net, data)
    ]

    assert {Status.PASS, Status.FAIL} - set(verdicts)
    assert verdicts.count(Status.INCONCLUSIVE) < len(SEEDS)


def test_at_the_very_threshold_noise_is_undecided(moved, data):
    """With the threshold at the true shift hardly a draw decides, and auto settles none of them."""
    truth = next(
        each.shift
        for each in scan(moved, data.split(500), samples=None).layers
        if each.name == "bn"
    )

    judged = [judge_report(each, max_shift=truth) for each in reports_of_noise(moved, data)]

    undecided = sum(each.verdict.status is Status.INCONCLUSIVE for each in judged)
    settled = sum(
        is_settled(each, lambda found: judge_report(found, max_shift=truth).verdict)
        for each in judged
    )
    assert undecided >= len(SEEDS) - 4
    assert settled <= 2
