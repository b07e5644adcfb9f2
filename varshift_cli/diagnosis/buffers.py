"""What the running buffers describe: the net with dropout on, or off.

Within layers, ln((R+eps)/(C+eps)) is regressed on ln((T+eps)/(C+eps)) over live channels: slope 1
when the buffers were gathered with dropout on, 0 when without (repaired before, or BN frozen while
training). The intercept of each layer absorbs what augmentation or pruning moved as a whole;
comparing distances |ln T/R| and |ln C/R| instead is fooled by it. Masks and samples make T/C
noisy, which alone would pull the slope towards 0 where all channels are moved alike; that noise is
known from the groups of samples and is taken out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from varshift_cli.measurement import LayerMoments
from varshift_cli.records import BuffersRecord, Describe
from varshift_cli.statistics import GroupMoments, Pair, live_channels, log_ratio, within_layer_slope

MOVED = 0.02
"""Channel mean of |ln T/C| from which a layer counts as moved by dropout."""
_NEITHER = -1.0
"""A slope below it is as far from 0 as 0 is from 1, on the other side: repaired nets read -0.34 to
0.04, while one layer alone can give anything where means moved rather than variances."""
_HALF = 0.5


def describe_buffers(layers: Sequence[LayerMoments]) -> tuple[BuffersRecord, str | None]:
    """Decide between ``train`` and ``clean``; also the reason when it stays ``unknown``."""
    filled = [layer for layer in layers if not layer.site.never_updated]
    if layers and not filled:
        return BuffersRecord(), "the running statistics were never updated"
    pairs = [pair for layer in filled if (pair := _pair(layer)) is not None]
    if not pairs:
        return BuffersRecord(), "no dropout moves any layer, so nothing tells the two apart"
    estimate = within_layer_slope(pairs)
    if estimate is None:
        return BuffersRecord(), "dropout moves the channels too few or too evenly to fit a slope"
    slope, error = estimate.slope, estimate.error
    if slope - 2.0 * error > _HALF:
        return BuffersRecord(Describe.TRAIN, slope, error), None
    if slope > _NEITHER and slope + 2.0 * error < _HALF:
        return BuffersRecord(Describe.CLEAN, slope, error), None
    weak = "the effect of dropout is too weak, or the buffers fit the network neither way"
    return BuffersRecord(Describe.UNKNOWN, slope, error), weak


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
