"""The interval of a mean of values that may be skewed: errors of a regression, losses.

One sample in six hundred may lose a thousand times what any other loses. By the standard error the
mean is then uncertain both ways, and a repair that spoils nearly every sample looks harmless; the
bootstrap's quantiles (Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist.
1979) tell how the mean would be without it, on the one side, and with it twice, on the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from varshift_cli.records import Interval
from varshift_cli.statistics.intervals import t975

_DRAWS = 1000
_AT_A_TIME = 2**20
_MOST = 200_000
"""Values from which no single one matters any more, and the standard error will do."""
_Z = 1.96


def mean_interval(values: Tensor) -> Interval:
    """95 % interval of the mean of independent values.

    Args:
        values: Shape (N,), N at least 2. Up to three different ones, as changes of right and wrong
            are, go by the standard error.

    Returns:
        Quantiles of the bootstrap, as much wider as Student's t is than a normal quantile. The
        same for the same values in the same order.
    """
    values = values.double()
    count, mean = len(values), float(values.mean())
    half = _Z * float(values.std()) / math.sqrt(count)
    if count > _MOST or not math.isfinite(half) or len(torch.unique(values)) <= 3:
        return Interval(mean - half, mean + half)
    means = _resampled(values)
    low, high = (float(torch.quantile(means, share)) for share in (0.025, 0.975))
    wider = t975(count - 1) / _Z * math.sqrt(count / (count - 1))
    return Interval(mean - (mean - low) * wider, mean + (high - mean) * wider)


def _resampled(values: Tensor) -> Tensor:
    """Means of draws with replacement, shape (draws,)."""
    generator = torch.Generator().manual_seed(0)
    rows = max(_AT_A_TIME // len(values), 1)
    found = []
    for start in range(0, _DRAWS, rows):
        shape = (min(rows, _DRAWS - start), len(values))
        found.append(values[torch.randint(len(values), shape, generator=generator)].mean(1))
    return torch.cat(found)
