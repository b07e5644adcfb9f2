"""Windows of samples: as few as memory allows, merged by total variance."""

from __future__ import annotations

import pytest
import torch

from tests.nets import Mlp, batches_of, captured_inputs, warmed_up
from varshift_cli import UsageError
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement.memory import free_bytes, memory_budget, plan_windows
from varshift_cli.records import SilentProgress
from varshift_cli.remedies import Workload, gather_populations


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2G", 2 << 30), ("512M", 512 << 20), ("1.5k", 1536), ("3GiB", 3 << 30), ("4096", 4096)],
)
def test_sizes(text: str, expected: int) -> None:
    """A size is a number with K, M, G or T."""
    assert memory_budget(text) == expected


@pytest.mark.parametrize(("text", "share"), [(None, 0.5), ("0.25", 0.25), ("50%", 0.5)])
def test_shares(text: str | None, share: float) -> None:
    """Anything up to 1, or in percent, is a share of what is free; half by default."""
    assert memory_budget(text) == pytest.approx(share * free_bytes(), rel=0.2)


@pytest.mark.parametrize("text", ["much", "-1", "0", "2X", "", "200%", "nan", "12"])
def test_nonsense_is_refused(text: str) -> None:
    """What is no size is an error that shows what one looks like."""
    with pytest.raises(UsageError, match="--memory") as raised:
        memory_budget(text)
    assert "--memory 2G" in str(raised.value)


def test_windows_keep_every_batch_within_the_budget() -> None:
    """All batches, once, in order; no window beyond the budget but one of a single batch."""
    batches = batches_of(torch.zeros(1000, 1), 64)
    for budget in (10, 64, 100, 500, 999, 1000, 10**9):
        windows = plan_windows(batches, 1.0, budget)
        assert [index for window in windows for index, _ in window] == list(range(16))
        for window in windows:
            assert len(window) == 1 or sum(batch.size for _, batch in window) <= budget
    assert len(plan_windows(batches, 1.0, 1000)) == 1
    assert [len(window) for window in plan_windows(batches, 1.0, 600)] == [8, 8]


def test_windows_change_the_statistics_little() -> None:
    """Statistics in eight windows against those of all samples, by hand: within 2 %."""
    torch.manual_seed(0)
    x = torch.randn(1024, 12) * 3
    model = warmed_up(Mlp(), x)
    catalogue = find_batch_norms(model)
    # A parked forward holds a sample's copied input, 12 values, and one BN input, 24.
    work = Workload(model, catalogue, batches_of(x, 16), (), SilentProgress(), memory=4 * 36 * 128)
    found = gather_populations(work, with_train=False)
    assert found.procedure.windows == 8
    exact = gather_populations(
        Workload(model, catalogue, batches_of(x, 16), (), SilentProgress()), with_train=False
    )
    assert exact.procedure.windows == 1
    first = captured_inputs(model, x, ["body.1"])["body.1"]
    torch.testing.assert_close(found.clean["body.1"].var, first.var(0), rtol=1e-6, atol=0.0)
    for name, population in found.clean.items():
        ratio = (population.var / exact.clean[name].var).log().abs()
        assert float(ratio.mean()) < 0.02
