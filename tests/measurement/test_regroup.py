"""How many batches go through together: one when it fits, as far as that is faster."""

import pytest
import torch
from torch import nn

from tests.nets import batches_of
from varshift_cli.instrument import borrowed, find_batch_norms
from varshift_cli.measurement import regroup
from varshift_cli.measurement.passes import wire
from varshift_cli.measurement.regroup import join_factor

MIB = 1 << 20


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the program, which keeps the memory it frees."""
    monkeypatch.setattr(regroup, "is_freed_memory_kept", lambda: True)


@pytest.mark.usefixtures("kept")
def test_all_go_in_one_batch_when_it_fits() -> None:
    assert join_factor(16 * MIB, 8, 1024 * MIB) == 8


@pytest.mark.usefixtures("kept")
def test_memory_keeps_batches_apart() -> None:
    assert join_factor(16 * MIB, 8, 256 * MIB) == 2
    assert join_factor(16 * MIB, 8, 64 * MIB) == 1


@pytest.mark.usefixtures("kept")
def test_large_batches_stay_as_they_are() -> None:
    assert join_factor(100 * MIB, 8, 64 << 30) == 1


@pytest.mark.usefixtures("kept")
def test_as_many_to_each() -> None:
    """Eight by at most six: four and four, rather than six and two."""
    assert join_factor(30 * MIB, 8, 64 << 30) == 4


def test_batches_stay_small_where_large_blocks_are_cleared_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(regroup, "is_freed_memory_kept", lambda: False)
    assert join_factor(MIB, 64, 64 << 30) == 8
    assert join_factor(0, 64, 64 << 30) == 64


def test_what_a_forward_holds_at_work_is_told_of_a_trunk_without_batch_norm() -> None:
    """Its widest values never enter a BatchNorm: in and out of the ReLU, beside a copy of x."""
    trunk = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*trunk, nn.BatchNorm1d(8)).eval()
    with borrowed(model, find_batch_norms(model)) as instrumented:
        wiring, _ = wire(instrumented, batches_of(torch.randn(32, 3, 16, 16), 16))
    assert wiring.working_bytes == 4 * (3 + 8 + 8) * 16 * 16
    assert wiring.live_bytes == 4 * (3 * 16 * 16 + 8)
