"""Ratios of variances, with ``+eps`` on both sides."""

from __future__ import annotations

import torch
from torch import Tensor

DEAD_FRACTION = 0.01
"""A channel is dead when max(R, E) is below this share of eps: any ratio there is meaningless."""


def live_channels(running_var: Tensor, eval_var: Tensor, eps: float) -> Tensor:
    """Which channels carry a signal, shape (C,), bool; NaN is broken, not dead."""
    return ~(torch.maximum(running_var, eval_var) < DEAD_FRACTION * eps)


def log_ratio(numerator: Tensor, denominator: Tensor, eps: float) -> Tensor:
    """ln((numerator + eps)/(denominator + eps)), broadcasting, float64."""
    return torch.log(numerator.double() + eps) - torch.log(denominator.double() + eps)
