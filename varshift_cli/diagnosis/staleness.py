"""How far the running buffers are from what training would gather on this data, beyond noise.

A running variance is an exponential average over batches, so it is never quite T: with cv the
relative standard deviation of the variance from batch to batch, alpha the momentum and nb the
number of calibration batches, ln T/R of one channel has a standard deviation of about
cv sqrt(alpha/(2 - alpha) + 1/nb), and 0.8 of that is its mean absolute value.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from varshift_cli.measurement import LayerMoments
from varshift_cli.statistics import GroupMoments, live_channels, log_ratio

_MEAN_OF_ABSOLUTE = 0.8
"""E|Z| of a standard normal, sqrt(2/pi)."""


@dataclass(frozen=True, slots=True)
class Staleness:
    """Medians over layers.

    Attributes:
        distance: Of the channel mean of |ln((T+eps)/(R+eps))|.
        excess: Of the same divided by what momentum and sampling explain.
    """

    distance: float
    excess: float


def staleness_of(
    layers: Sequence[LayerMoments],
    momentum: Mapping[str, float],
    *,
    samples: int,
    batch_size: int,
) -> Staleness | None:
    """Compare T with R; ``None`` if no layer can be compared.

    Args:
        layers: As measured.
        momentum: alpha of each BN by name; 0.1 where it is missing.
        samples: How many were measured.
        batch_size: Samples per training batch, as far as anybody knows.
    """
    distances, excesses = [], []
    for layer in layers:
        found = _distance(layer)
        if found is None:
            continue
        distance, cv = found
        alpha = momentum.get(layer.key.name, 0.1)
        groups = layer.train.populated().groups
        # cv is known between groups of samples; between batches it is smaller by the square root
        # of how many more samples a batch holds.
        batch_cv = cv * math.sqrt(samples / groups / batch_size)
        explained = _MEAN_OF_ABSOLUTE * math.sqrt(
            batch_cv**2 * alpha / (2.0 - alpha) + cv**2 / groups
        )
        distances.append(distance)
        excesses.append(distance / max(explained, 1e-9))
    if not distances:
        return None
    return Staleness(statistics.median(distances), statistics.median(excesses))


def _distance(layer: LayerMoments) -> tuple[float, float] | None:
    """Channel means of |ln T/R| and of cv."""
    running = layer.site.held_var
    train = layer.train.populated()
    if train.groups < 2:
        return None
    pooled = train.pooled().var
    live = live_channels(running, pooled, layer.eps)
    distance = log_ratio(pooled, running, layer.eps)[live].abs()
    cv = _variation(train)[live]
    if not distance.numel() or not bool(distance.isfinite().all() & cv.isfinite().all()):
        return None
    return float(distance.mean()), float(cv.mean())


def _variation(moments: GroupMoments) -> Tensor:
    """Relative standard deviation of the variance from group to group, shape (C,)."""
    within = moments.m2 / (moments.count - 1.0).clamp(min=1.0).unsqueeze(1)
    mean: Tensor = within.mean(dim=0).clamp(min=1e-30)
    return within.std(dim=0) / mean
