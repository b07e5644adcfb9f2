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
_RELIABLE = 0.5
"""At least this share of x's spread must be real rather than noise."""
_INEXACT = 0.05
"""How far the factor of one layer may be from that of all, however many channels it has."""


@dataclass(frozen=True, slots=True)
class SlopeEstimate:
    """A least-squares slope and its jackknife standard error."""

    slope: float
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """x and y of one layer's channels, each of shape (channels,), float64.

    ``xx_noise`` and ``xy_noise`` are the error variance of x and its error covariance with y;
    noise in x alone would pull a slope towards 0.
    """

    x: Tensor
    y: Tensor
    xx_noise: Tensor | None = None
    xy_noise: Tensor | None = None


def within_layer_slope(pairs: Sequence[Pair]) -> SlopeEstimate | None:
    """Regress y on x over all channels, with an intercept per layer and known errors in x.

    slope = (sum xy - its noise)/(sum xx - its noise), x and y centred within layers (Fuller,
    Measurement Error Models, 1987, section 1.2).

    Args:
        pairs: One per layer.

    Returns:
        The slope, with a standard error by leaving out one layer at a time (one fold of channels
        when there are fewer than :data:`MIN_LAYERS` layers); ``None`` when x does not vary, or
        not by more than its noise.
    """
    few = len(pairs) < MIN_LAYERS
    sums = [each for pair in pairs for each in _sums(pair, _FOLDS if few else 1)]
    if len(sums) < 2:
        return None
    table = torch.tensor(sums, dtype=torch.float64)  # rows: xx, xy, noise of xx, noise of xy
    total = table.sum(dim=0)
    left = total - table
    if float(total[0] - total[2]) < _RELIABLE * float(total[0]):
        return None
    if bool((left[:, 0] - left[:, 2] <= 0.0).any()) or float(total[0]) <= 0.0:
        return None
    partial = (left[:, 1] - left[:, 3]) / (left[:, 0] - left[:, 2])
    spread = float((partial - partial.mean()).square().sum())
    slope = float((total[1] - total[3]) / (total[0] - total[2]))
    return SlopeEstimate(slope, math.sqrt((len(sums) - 1) / len(sums) * spread))


def common_factor(pairs: Sequence[Pair]) -> tuple[SlopeEstimate, SlopeEstimate] | None:
    """One factor for all layers, by y = factor x through the origin.

    It is taken twice: from what the layers moved on average (sum y/sum x), and from how channels
    differ within them, which alone withstands an intercept. Layers count by their precision, for
    one whose y is noisy would otherwise hide what all others show; the error grows with their
    disagreement (Birge, "The calculation of errors by the method of least squares", Phys. Rev.
    1932).

    Args:
        pairs: One per layer.

    Returns:
        The factor by averages and that by channels; ``None`` where x tells nothing.
    """
    averages = [each for pair in pairs if (each := _by_average(pair)) is not None]
    within = [each for pair in pairs if (each := _by_channels(pair)) is not None]
    return (_weighted(averages), _weighted(within)) if averages and within else None


def _by_average(pair: Pair) -> SlopeEstimate | None:
    mean = float(pair.x.mean())
    if not mean or pair.x.numel() < 2:
        return None
    slope = float(pair.y.mean()) / mean
    error = float((pair.y - slope * pair.x).std()) / math.sqrt(pair.x.numel()) / abs(mean)
    return SlopeEstimate(slope, math.hypot(error, _INEXACT))


def _by_channels(pair: Pair) -> SlopeEstimate | None:
    if pair.x.numel() < 3:
        return None
    ((xx, xy, xx_noise, xy_noise),) = _sums(pair, 1)
    if xx <= 0.0 or xx - xx_noise < _RELIABLE * xx:
        return None
    slope = (xy - xy_noise) / (xx - xx_noise)
    left = (pair.y - pair.y.mean()) - slope * (pair.x - pair.x.mean())
    variance = float(left.square().sum()) / (pair.x.numel() - 2)
    return SlopeEstimate(slope, math.hypot(math.sqrt(variance / (xx - xx_noise)), _INEXACT))


def _weighted(found: Sequence[SlopeEstimate]) -> SlopeEstimate:
    """The mean by inverse variance, its error as large as the layers disagree."""
    weights = [1.0 / each.error**2 for each in found]
    pairs = list(zip(found, weights, strict=True))
    slope = sum(each.slope * weight for each, weight in pairs) / sum(weights)
    scatter = sum((each.slope - slope) ** 2 * weight for each, weight in pairs)
    birge = math.sqrt(max(1.0, scatter / max(len(found) - 1, 1)))
    return SlopeEstimate(slope, birge / math.sqrt(sum(weights)))


def _sums(pair: Pair, folds: int) -> list[tuple[float, float, float, float]]:
    """xx, xy and their noise, of the whole layer or fold by fold of its channels."""
    channels = pair.x.shape[0]
    x, y = pair.x - pair.x.mean(), pair.y - pair.y.mean()
    zeros = torch.zeros_like(x)
    # Centring takes one channel's share of the noise away with the mean.
    kept = 1.0 - 1.0 / channels
    xx_noise = (zeros if pair.xx_noise is None else pair.xx_noise) * kept
    xy_noise = (zeros if pair.xy_noise is None else pair.xy_noise) * kept
    folds = min(folds, channels)
    return [
        (
            float(x[fold::folds] @ x[fold::folds]),
            float(x[fold::folds] @ y[fold::folds]),
            float(xx_noise[fold::folds].sum()),
            float(xy_noise[fold::folds].sum()),
        )
        for fold in range(folds)
    ]
