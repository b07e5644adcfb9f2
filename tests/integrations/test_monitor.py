import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.nets import Mlp
from varshift_cli import (
    DataError,
    ForwardError,
    NothingToMeasureError,
    ShiftMonitor,
    UsageError,
    scan,
)


def loader(samples=256):
    x = torch.randn(samples, 12, generator=torch.Generator().manual_seed(1))
    y = torch.arange(samples) % 4
    return DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)


def train(*, watch, epochs=6):
    """A plain loop; the weights it ends with, and the monitor."""
    torch.manual_seed(0)
    model, data = Mlp(), loader()
    logged = []
    monitor = None
    if watch:
        monitor = ShiftMonitor(model, data, every=2, log=lambda *each: logged.append(each))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(epochs):
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        if monitor is not None:
            monitor.step()
    return model, monitor, logged


def test_every_second_epoch():
    """The worst layer is scanned, kept and logged after every second epoch of six."""
    model, monitor, logged = train(watch=True)

    assert [each.epoch for each in monitor.history] == [2, 4, 6]
    assert logged == [("varshift/worst_shift", each.shift, each.epoch) for each in monitor.history]
    worst = scan(model, monitor._batches).verdict
    last = monitor.history[-1]
    assert (last.layer, last.shift) == (worst.worst_layer, worst.worst_shift)
    assert last.interval.low <= last.shift <= last.interval.high


def test_training_is_the_same_bit_for_bit():
    """A watched training ends with the very weights and statistics of an unwatched one."""
    watched, plain = train(watch=True)[0], train(watch=False)[0]

    assert watched.training
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_no_more_samples_than_asked_for():
    """Only as many samples are kept as were asked for."""
    monitor = ShiftMonitor(Mlp(), loader(), every=1, samples=100)
    monitor.step()

    assert monitor.report.calibration.samples == 100


def test_own_epoch_numbers():
    """Epochs may be numbered by the loop, as after a resume."""
    monitor = ShiftMonitor(Mlp(), loader(), every=5)

    assert monitor.step(9) is None
    assert monitor.step(10).epoch == 10
    assert monitor.step() is None


def test_mistakes_show_at_once():
    """A period of none, or too little data, is refused before the training begins."""
    with pytest.raises(UsageError, match="at least 1"):
        ShiftMonitor(Mlp(), loader(), every=0)
    with pytest.raises(DataError):
        ShiftMonitor(Mlp(), [torch.randn(1, 12)])
    with pytest.raises(NothingToMeasureError):
        ShiftMonitor(nn.Linear(12, 2), loader(), every=1).step()


def test_a_later_failure_does_not_end_the_training():
    """Once a scan has worked, one that fails is a warning."""
    model = Mlp()
    monitor = ShiftMonitor(model, loader(), every=1)
    monitor.step()
    model.head = nn.Linear(5, 5)

    with pytest.warns(UserWarning, match="no scan after epoch 2"):
        assert monitor.step() is None

    with pytest.raises(ForwardError):
        ShiftMonitor(model, loader(), every=1).step()
