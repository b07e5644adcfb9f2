"""What the running buffers describe: the net with dropout on, or off.

Within layers, ln((R+eps)/(C+eps)) is regressed on ln((T+eps)/(C+eps)) over live channels: slope 1
when the buffers were gathered with dropout on, 0 when without (repaired before, or BN frozen while
training). The intercept of each layer absorbs what augmentation or pruning moved as a whole;
comparing distances |ln T/R| and |ln C/R| instead is fooled by it. Masks and samples make T/C
noisy, which alone would pull the slope towards 0 where all channels are moved alike; that noise is
known from the groups of samples and is taken out.

Dropout of another probability than in training moves R by another factor of what it moves T today:
about the ratio of p'/(1-p') to p/(1-p), in all layers and in all their channels alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from varshift_cli.measurement import LayerMoments
from varshift_cli.records import BuffersRecord, Describe, DropoutRecord
from varshift_cli.statistics import (
    GroupMoments,
    Pair,
    SlopeEstimate,
    common_factor,
    live_channels,
    log_ratio,
    within_layer_slope,
)

MOVED = 0.02
"""Channel mean of |ln T/C| from which a layer counts as moved by dropout."""
_NEITHER = -1.0
"""A slope below it is as far from 0 as 0 is from 1, on the other side: repaired nets read -0.34 to
0.04, while one layer alone can give anything where means moved rather than variances."""
_HALF = 0.5
_PARTIAL = 0.1
"""A factor beyond which buffers hold some of the effect of dropout; repaired nets read 0.04 at
most."""
_CERTAIN = 3.0
"""Standard errors by which a factor must differ from 1 to be another one."""
OTHER_PROBABILITY = "another dropout probability than in training (--arch-arg)"
_BY_ODDS = frozenset(
    {"dropout", "feature_dropout", "gaussian_dropout", "drop_path", "stochastic_depth"}
)
"""Kinds of noise whose variance is as p/(1-p)."""


@dataclass(frozen=True, slots=True)
class OtherDropout:
    """What dropout in training was, if the buffers were gathered with another probability."""

    factor: float
    """p'/(1-p') of training, over p/(1-p) of the model as it is."""

    def probability(self, dropouts: Sequence[DropoutRecord]) -> tuple[float, float] | None:
        """p of the model and p' of training, where all dropouts before BN have one."""
        before = [each for each in dropouts if each.reaches]
        known = {each.p for each in before}
        now = known.pop() if len(known) == 1 else None
        if not now or now >= 1.0 or not {each.kind for each in before} <= _BY_ODDS:
            return None
        odds = self.factor * now / (1.0 - now)
        return now, odds / (1.0 + odds)

    def told(self, dropouts: Sequence[DropoutRecord] = ()) -> str:
        """As a candidate in a list of causes."""
        both = self.probability(dropouts)
        fits = (
            f"p/(1-p) times about {self.factor:.2g} fits"
            if both is None
            else f"p about {both[1]:.2f} fits, not {both[0]:g}"
        )
        return f"{OTHER_PROBABILITY}: {fits}"


def other_dropout(layers: Sequence[LayerMoments]) -> OtherDropout | None:
    """The factor that explains R/C where neither 0 nor 1 does, if one factor does.

    Layers must agree on it and differ from 0 and 1 beyond doubt, and channels within layers must
    tell the same: augmentation or other data move layers by factors of their own. One layer alone
    agrees with itself, so there channels must tell as much.
    """
    pairs = [_as_ratios(pair) for pair in _pairs(layers)]
    found = common_factor(pairs) if pairs else None
    if found is None or not _is_seen(*found):
        return None
    layerwise, channelwise = found
    apart = _CERTAIN * math.hypot(layerwise.error, channelwise.error)
    if not _is_away(layerwise, _CERTAIN) or abs(layerwise.slope - channelwise.slope) > apart:
        return None
    if len(pairs) == 1 and not _is_away(channelwise, 2.0):
        return None
    return OtherDropout(layerwise.slope)


def _as_ratios(pair: Pair) -> Pair:
    """T/C - 1 and R/C - 1 in place of logarithms: it is variance that grows with p/(1-p)."""
    t, r = pair.x.exp(), pair.y.exp()
    xx_noise = None if pair.xx_noise is None else pair.xx_noise * t * t
    xy_noise = None if pair.xy_noise is None else pair.xy_noise * t * r
    return Pair(t - 1.0, r - 1.0, xx_noise, xy_noise)


def _is_away(factor: SlopeEstimate, errors: float) -> bool:
    """Whether a factor is neither 0 nor 1, by so many standard errors."""
    away = max(errors * factor.error, _PARTIAL)
    return factor.slope > away and abs(factor.slope - 1.0) > away


def _is_seen(layerwise: SlopeEstimate, channelwise: SlopeEstimate) -> bool:
    """Whether the buffers hold an effect of dropout, by layers and by channels within them."""
    by_layers = layerwise.slope - 2.0 * layerwise.error > _PARTIAL
    return by_layers and channelwise.slope - 2.0 * channelwise.error > 0.0


def describe_buffers(
    layers: Sequence[LayerMoments], dropouts: Sequence[DropoutRecord] = ()
) -> tuple[BuffersRecord, str | None]:
    """Decide between ``train`` and ``clean``; also the reason when it stays ``unknown``.

    Args:
        layers: As measured.
        dropouts: Of the model, for what is said of their probability.
    """
    if layers and all(layer.site.never_updated for layer in layers):
        return BuffersRecord(), "the running statistics were never updated"
    pairs = _pairs(layers)
    if not pairs:
        return BuffersRecord(), "no dropout moves any layer, so nothing tells the two apart"
    estimate = within_layer_slope(pairs)
    if estimate is None:
        return BuffersRecord(), "dropout moves the channels too few or too evenly to fit a slope"
    slope, error = estimate.slope, estimate.error
    if slope - 2.0 * error > _HALF:
        return BuffersRecord(Describe.TRAIN, slope, error), None
    is_low = slope > _NEITHER and slope + 2.0 * error < _HALF
    if is_low and not _is_partial(estimate, common_factor(pairs)):
        return BuffersRecord(Describe.CLEAN, slope, error), None
    other = other_dropout(layers)
    if other is not None:
        return BuffersRecord(Describe.UNKNOWN, slope, error), other.told(dropouts)
    weak = "the effect of dropout is too weak, or the buffers fit the network neither way"
    return BuffersRecord(Describe.UNKNOWN, slope, error), weak


def _is_partial(
    estimate: SlopeEstimate, factors: tuple[SlopeEstimate, SlopeEstimate] | None
) -> bool:
    """Whether a slope that is nearer to 0 than to 1 may be part of an effect, rather than none.

    It counts all channels alike, so that one layer of noisy buffers can hide what others show.
    """
    if factors is not None and _is_seen(*factors):
        return True
    if estimate.slope <= _PARTIAL:
        return False
    certain = estimate.slope - 2.0 * estimate.error > _PARTIAL
    return certain or factors is None or factors[0].slope > _PARTIAL


def _pairs(layers: Sequence[LayerMoments]) -> list[Pair]:
    """Of layers that dropout moves; buffers that were never updated describe nothing."""
    filled = [layer for layer in layers if not layer.site.never_updated]
    return [pair for layer in filled if (pair := _pair(layer)) is not None]


def _pair(layer: LayerMoments) -> Pair | None:
    """ln T/C and ln R/C over live channels of a layer that dropout moves."""
    if layer.train is layer.clean:
        return None
    train, clean = layer.train.pooled().var, layer.clean.pooled().var
    running = layer.site.held_var
    deployed = layer.eval.pooled().var
    if not all(bool(var.isfinite().all()) for var in (train, clean, deployed)):
        return None  # values overflow here: what is left of them tells nothing
    live = live_channels(running, deployed, layer.eps)
    x = log_ratio(train, clean, layer.eps)[live]
    y = log_ratio(running, clean, layer.eps)[live]
    xx_noise, xy_noise = (noise[live] for noise in _noise(layer))
    finite = x.isfinite() & y.isfinite() & xx_noise.isfinite() & xy_noise.isfinite()
    x, y = x[finite], y[finite]
    if x.numel() < 2 or float(x.abs().mean()) < MOVED:
        return None
    return Pair(x, y, xx_noise[finite], xy_noise[finite])


def _noise(layer: LayerMoments) -> tuple[Tensor, Tensor]:
    """Jackknife variance of ln T/C, and its covariance with ln R/C, each of shape (C,)."""
    train, clean = _left_out(layer.train), _left_out(layer.clean)
    groups = train.shape[0]
    if groups < 2 or train.shape != clean.shape:
        zeros = torch.zeros(layer.site.num_features, dtype=torch.float64)
        return zeros, zeros
    x = log_ratio(train, clean, layer.eps)
    y = -torch.log(clean + layer.eps)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    scale = (groups - 1) / groups
    return (x * x).sum(dim=0) * scale, (x * y).sum(dim=0) * scale


def _left_out(moments: GroupMoments) -> Tensor:
    """Variances with each group left out, shape (G, C)."""
    populated = moments.populated()
    weights = 1.0 - torch.eye(populated.groups, dtype=torch.float64)
    return populated.reweighted(weights)[1]
