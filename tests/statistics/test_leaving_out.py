"""Intervals from groups left out: closed form, coverage, and what cannot be told."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from varshift_cli.records import Interval
from varshift_cli.statistics import all_but_one_group, left_out_interval
from varshift_cli.statistics.leaving_out import GROUPS, group_sizes


def interval(figure: Callable[[Tensor], float], rows: Tensor) -> Interval:
    without = [figure(rows[kept]) for kept in all_but_one_group(len(rows))]
    found = left_out_interval(figure(rows), torch.tensor(without, dtype=torch.float64), len(rows))
    assert found is not None
    return found


@pytest.mark.parametrize("rows", [2, 5, 16, 20, 250, 1000])
def test_groups_hold_each_sample_once(rows: int) -> None:
    """Left out once and kept otherwise, in groups that differ by one at most."""
    kept = list(all_but_one_group(rows))
    assert len(kept) == len(group_sizes(rows)) == min(GROUPS, rows)
    assert torch.bincount(torch.cat(kept)).tolist() == [len(kept) - 1] * rows
    assert max(group_sizes(rows)) - min(group_sizes(rows)) <= 1


@pytest.mark.parametrize("rows", [16, 320])
def test_of_a_mean_it_is_students(rows: int) -> None:
    """For a mean, groups of one size: exactly Student's t interval of the groups' means."""
    values = torch.randn(rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = interval(lambda part: float(part.mean()), values)
    means = [
        (values.sum() - values[kept].sum()) * GROUPS / rows for kept in all_but_one_group(rows)
    ]
    error = float(torch.stack(means).std()) / math.sqrt(GROUPS)
    half = float(stats.t.ppf(0.975, GROUPS - 1)) * error
    assert found.low == pytest.approx(float(values.mean()) - half, abs=1e-6)
    assert found.high == pytest.approx(float(values.mean()) + half, abs=1e-6)


def auc(rows: Tensor, column: int) -> float:
    """Area under the ROC curve: the share of pairs in the right order."""
    positive, negative = rows[rows[:, 0] > 0.5], rows[rows[:, 0] < 0.5]
    return float((positive[:, None, column] > negative[None, :, column]).double().mean())


def correlation(rows: Tensor, column: int) -> float:
    return float(torch.corrcoef(rows[:, [0, column]].T)[0, 1])


def median(rows: Tensor, column: int) -> float:
    return -float((rows[:, column] - rows[:, 0]).abs().quantile(0.5))


def gaussian(samples: int, generator: torch.Generator, *, binary: bool) -> Tensor:
    """Targets, outputs with noise 1.0, and with noise 0.8 that is half the same."""
    target, first, second = torch.randn(3, samples, generator=generator, dtype=torch.float64)
    if binary:
        target = (target > 0).double()
    noise = (first + second) / math.sqrt(2)
    return torch.stack((target, target + first, target + 0.8 * noise), dim=1)


NORMAL = stats.norm


@pytest.mark.parametrize("samples", [100, 500])
@pytest.mark.parametrize(
    ("figure", "truth"),
    [
        (auc, float(NORMAL.cdf(1 / (0.8 * math.sqrt(2))) - NORMAL.cdf(1 / math.sqrt(2)))),
        (correlation, 1 / math.sqrt(1 + 0.64) - 1 / math.sqrt(2)),
        (median, 0.2 * float(NORMAL.ppf(0.75))),
    ],
)
def test_interval_of_a_change_covers_the_truth(
    figure: Callable[[Tensor, int], float], truth: float, samples: int
) -> None:
    """In 300 repetitions it holds the true change, in closed form, about 95 % of the time."""
    generator = torch.Generator().manual_seed(1)
    covered, repetitions = 0, 300
    for _ in range(repetitions):
        rows = gaussian(samples, generator, binary=figure is auc)
        found = interval(lambda part: figure(part, 2) - figure(part, 1), rows)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / repetitions <= 0.985


@pytest.mark.parametrize("groups", [GROUPS, 3])
def test_unequal_groups_by_monte_carlo(groups: int) -> None:
    """Where groups differ in size, most at few samples, the interval is neither wide nor narrow."""
    samples = GROUPS + 5 if groups == GROUPS else groups
    generator = torch.Generator().manual_seed(2)
    covered, repetitions = 0, 2000
    for _ in range(repetitions):
        rows = torch.randn(samples, generator=generator, dtype=torch.float64)
        found = interval(lambda part: float(part.mean()), rows)
        covered += found.low <= 0.0 <= found.high
    assert covered / repetitions == pytest.approx(0.95, abs=0.015)


def test_what_cannot_be_told_has_no_interval() -> None:
    """One sample, or a group without which the figure has no value."""
    assert left_out_interval(0.5, torch.tensor([0.4], dtype=torch.float64), 1) is None
    without = torch.tensor([0.4, math.nan, 0.5], dtype=torch.float64)
    assert left_out_interval(0.5, without, 3) is None
