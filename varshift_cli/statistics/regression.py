"""A common slope over several layers, each with an intercept of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_LAYERS = 4
"""With fewer layers, folds of channels are left out instead of layers."""
_FOLDS = 8


@dataclass(frozen=True, slots=True)
class SlopeEstimate:
    """A least-squares slope and its jackknife standard error."""

    slope: float
    error: float


def within_layer_slope(pairs: Sequence[tuple[Tensor, Tensor]]) -> SlopeEstimate | None:
    """Regress y on x over all channels, with an intercept per layer.

    Args:
        pairs: (x, y) of each layer, each of shape (channels,), float64.

    Returns:
        The slope, with a standard error by leaving out one layer at a time (one fold of channels
        when there are fewer than :data:`MIN_LAYERS` layers); ``None`` when x does not vary.
    """
    units = list(pairs)
    if len(units) < MIN_LAYERS:
        units = [
            (x[fold::_FOLDS], y[fold::_FOLDS])
            for x, y in (_centred(pair) for pair in pairs)
            for fold in range(min(_FOLDS, x.shape[0]))
        ]
        sums = [(float(x @ x), float(x @ y)) for x, y in units]
    else:
        sums = [(float(x @ x), float(x @ y)) for x, y in (_centred(pair) for pair in units)]
    xx, xy = sum(s[0] for s in sums), sum(s[1] for s in sums)
    if len(sums) < 2 or any(xx - s[0] <= 0.0 for s in sums):
        return None
    partial = torch.tensor([(xy - s[1]) / (xx - s[0]) for s in sums], dtype=torch.float64)
    spread = float((partial - partial.mean()).square().sum())
    return SlopeEstimate(xy / xx, math.sqrt((len(sums) - 1) / len(sums) * spread))


def _centred(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, y = pair
    return x - x.mean(), y - y.mean()
