"""The interval of any function of samples, from few calls of it: each of G groups left out once.

A figure of the user's own may be slow, so it is not computed on hundreds of bootstrap draws. The
jackknife that leaves out groups needs G calls; as groups are many samples each, it holds for
figures that are not smooth, too (a median, an area under a curve). Shao and Wu, "A general theory
for jackknife variance estimation", Ann. Statist. 1989; for groups of unequal size Busing, Meijer
and van der Leeden, "Delete-m jackknife for unequal m", Stat. Comput. 1999.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from varshift_cli.records import Interval
from varshift_cli.statistics.intervals import t975

GROUPS = 16
"""Of samples: so many calls, and an interval 9 % wider than by the normal quantile."""


def group_sizes(rows: int) -> list[int]:
    """Samples in each group: :data:`GROUPS` of them, or one sample each where there are fewer."""
    groups = min(GROUPS, rows)
    return [rows // groups + (group < rows % groups) for group in range(groups)]


def all_but_one_group(rows: int) -> Iterator[Tensor]:
    """The samples that stay when a group is left out, group by group.

    Samples are dealt at random, the same way for the same number: neighbours may be alike.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    end = 0
    for size in group_sizes(rows):
        start, end = end, end + size
        yield torch.cat((order[:start], order[end:])).sort().values


def left_out_interval(whole: float, without: Tensor, rows: int) -> Interval | None:
    """The 95 % interval of a figure.

    Args:
        whole: The figure on all samples.
        without: The same without each group of :func:`all_but_one_group`, shape (G,), float64.
        rows: Samples in all.

    Returns:
        ``None`` with fewer than two groups, or where a figure is not finite.
    """
    groups = len(without)
    if groups < 2 or not (math.isfinite(whole) and bool(without.isfinite().all())):
        return None
    sizes = torch.tensor(group_sizes(rows), dtype=torch.float64)
    parts = rows / sizes
    pseudo = parts * whole - (parts - 1.0) * without
    middle = groups * whole - float(((1.0 - sizes / rows) * without).sum())
    variance = float(((pseudo - middle).square() / (parts - 1.0)).mean())
    half = t975(groups - 1) * math.sqrt(variance)
    return Interval(whole - half, whole + half)
