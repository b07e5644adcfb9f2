"""The quantities of Li et al. (CVPR 2019, arXiv 1801.05134), section 3, on real activations.

They assume that all d inputs x_i of a filter have one mean c, one variance v and one correlation
rho; what is reported are the means over inputs. Their 1/p, p the keep probability, is 1 + s with s
the variance of the factor, which makes the formulas hold for any multiplicative noise of mean 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from varshift_cli.instrument.images import Unpredictable
from varshift_cli.instrument.linear_ops import Weights
from varshift_cli.statistics import GroupMoments


@dataclass(frozen=True, slots=True)
class Quantities:
    """c, v, rho, cos^2 theta and d where they apply, and Delta = Var_test/Var_train of them."""

    c: float
    v: float
    delta: float
    rho: float | None = None
    cos2: float | None = None
    """Mean over filters of (sum w)^2 / (d sum w^2)."""
    d: int | None = None


def straight_delta(c: Tensor, v: Tensor, spread: float) -> Tensor:
    """Case a, eq. 7-8: v / ((c^2 + v)/p - c^2)."""
    return v / (v + spread * (v + c.square()))


def weighted_delta(c: Tensor, v: Tensor, rho: Tensor, d_cos2: Tensor, spread: float) -> Tensor:
    """Case b, eq. 14: (v + v rho (d cos2 - 1)) / ((c^2 + v)/p - c^2 + v rho (d cos2 - 1))."""
    shared = v * rho * (d_cos2 - 1.0)
    return (v + shared) / (v + spread * (v + c.square()) + shared)


class Straight:
    """Case a: moments of what enters the noise."""

    def __init__(self, spread: float) -> None:
        self._spread = spread
        self._moments: GroupMoments | None = None

    def add(self, x: Tensor) -> None:
        """Take in (N, C, *S)."""
        if self._moments is None:
            self._moments = GroupMoments(1, x.shape[1])
        self._moments.add(x, 0)

    def quantities(self) -> Quantities | None:
        """Means over channels; Delta as a geometric mean."""
        if self._moments is None:
            return None
        found = self._moments.pooled()
        delta = straight_delta(found.mean, found.var, self._spread)
        return _checked(found.mean.mean(), found.var.mean(), delta)


class Weighted:
    """Case b: moments of what enters the weights, and of the sum under a filter's window."""

    def __init__(self, weights: Weights, spread: float) -> None:
        filters = weights.filters().double()
        self._spread = spread
        self._d = filters.shape[1]
        squares = filters.square().sum(1)
        cos2 = filters.sum(1).square() / (self._d * squares)
        self._cos2 = cos2[squares > 0.0].cpu()
        self._inputs: GroupMoments | None = None
        self._sums: GroupMoments | None = None

    def add(self, weights: Weights) -> None:
        """Take in one batch."""
        x = weights.input
        if weights.name in {"linear", "addmm", "mm", "matmul"}:
            x = x.reshape(-1, x.shape[-1])
        sums = weights.window_sums()
        if self._inputs is None or self._sums is None:
            self._inputs = GroupMoments(1, x.shape[1])
            self._sums = GroupMoments(1, sums.shape[1])
        self._inputs.add(x, 0)
        self._sums.add(sums, 0)

    def quantities(self) -> Quantities | None:
        """Means over inputs; rho from Var(sum) = d v (1 + (d - 1) rho)."""
        if self._inputs is None or self._sums is None or not self._cos2.numel():
            return None
        inputs, total = self._inputs.pooled(), self._sums.pooled().var.mean()
        c, v = inputs.mean.mean(), inputs.var.mean()
        if self._d < 2 or not float(v) > 0.0:
            return None
        rho = (total / (self._d * v) - 1.0) / (self._d - 1.0)
        delta = weighted_delta(c, v, rho, self._d * self._cos2, self._spread)
        found = _checked(c, v, delta)
        if found is None:
            return None
        return Quantities(
            found.c, found.v, found.delta, float(rho), float(self._cos2.mean()), self._d
        )


def weighted(weights: Weights, spread: float) -> Weighted | None:
    """The gathering of case b, or ``None`` for weights that are no filters."""
    try:
        return Weighted(weights, spread)
    except Unpredictable:
        return None


def _checked(c: Tensor, v: Tensor, delta: Tensor) -> Quantities | None:
    finite = delta[(delta > 0.0) & delta.isfinite()]
    if not finite.numel() or not bool(torch.isfinite(c) & torch.isfinite(v)):
        return None
    return Quantities(float(c), float(v), float(finite.log().mean().exp()))
