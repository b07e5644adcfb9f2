"""How many batches go through together: one when it fits, as far as that is faster."""

import pytest

from varshift_cli.measurement import regroup
from varshift_cli.measurement.regroup import join_factor

MIB = 1 << 20


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the program, which keeps the memory it frees."""
    monkeypatch.setattr(regroup, "is_freed_memory_kept", lambda: True)


@pytest.mark.usefixtures("kept")
def test_all_go_in_one_batch_when_it_fits() -> None:
    assert join_factor(8 * MIB, 8, 1024 * MIB) == 8


@pytest.mark.usefixtures("kept")
def test_memory_keeps_batches_apart() -> None:
    assert join_factor(8 * MIB, 8, 256 * MIB) == 2
    assert join_factor(8 * MIB, 8, 64 * MIB) == 1


@pytest.mark.usefixtures("kept")
def test_large_batches_stay_as_they_are() -> None:
    assert join_factor(100 * MIB, 8, 64 << 30) == 1


def test_batches_stay_small_where_large_blocks_are_cleared_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(regroup, "is_freed_memory_kept", lambda: False)
    assert join_factor(MIB, 64, 64 << 30) == 4
    assert join_factor(0, 64, 64 << 30) == 64
