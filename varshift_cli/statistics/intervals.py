"""Point estimates and 95 % intervals from groups of samples.

Samples, not values, are the independent units: positions of one image are correlated, so every
resampling draws whole groups. With G groups, Student's t with G-1 degrees of freedom is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from varshift_cli.records import Interval
from varshift_cli.statistics.moments import GroupMoments
from varshift_cli.statistics.ratios import log_ratio

DRAWS = 200
"""Bootstrap draws; the design asks for at least 100."""

SE_FLOOR = 1e-6
"""Jackknife standard errors are never reported below this."""

# Two-sided 95 % quantiles of Student's t for 1 to 31 degrees of freedom.
_T975 = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157,
    2.228139, 2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922,
    2.093024, 2.085963, 2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831,
    2.048407, 2.045230, 2.042272, 2.039513,
)  # fmt: skip


def t975(degrees: int) -> float:
    """The .975 quantile of Student's t."""
    if degrees <= len(_T975):
        return _T975[degrees - 1]
    # Abramowitz and Stegun 26.7.5, to 3e-6 from here on.
    z = 1.9599639845
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


@dataclass(frozen=True, slots=True)
class Resampling:
    """The weights by which groups are drawn again, shared by all layers of a scan.

    Attributes:
        bootstrap: Multinomial counts, shape (D, G), float64.
        jackknife: Ones but for a zero on the diagonal, shape (G, G), float64.
    """

    bootstrap: Tensor
    jackknife: Tensor

    @classmethod
    def of(cls, groups: int, seed: int) -> Resampling:
        """Weights for G groups, repeatable by the seed."""
        generator = torch.Generator().manual_seed(seed)
        picks = torch.randint(groups, (DRAWS, groups), generator=generator)
        counts = torch.zeros(DRAWS, groups, dtype=torch.float64)
        counts.scatter_add_(1, picks, torch.ones(DRAWS, groups, dtype=torch.float64))
        return cls(counts, 1.0 - torch.eye(groups, dtype=torch.float64))

    @property
    def groups(self) -> int:
        """G."""
        return self.jackknife.shape[0]


@dataclass(frozen=True, slots=True)
class ShiftEstimate:
    """``shift`` >= 1 with its interval (``None`` with fewer than two groups)."""

    shift: float
    interval: Interval | None


def shift_estimate(
    moments: GroupMoments, running_var: Tensor, eps: float, live: Tensor, resampling: Resampling
) -> ShiftEstimate:
    """The direction-free shift of one layer, corrected for the bias of an absolute value.

    s_hat = mean over live channels of abs(ln((E+eps)/(R+eps))). The absolute value turns the
    noise of each channel into a bias; the bootstrap repeats that bias on top of s_hat, so
    s = max(0, 2 s_hat - mean of s over the draws). The interval is s +- t(.975, G-1) se, with se
    the larger of sd_boot sqrt(G/(G-1)) and the jackknife's, and is widened by what the correction
    may leave (:data:`LEFT_ABOVE`, :data:`LEFT_BELOW`): that is the same in every channel, so that
    over many channels se is small beside it. The lower end is clipped at 0. All are returned
    through exp.

    Args:
        moments: Eval-regime moments in G populated groups of C channels.
        running_var: R, shape (C,).
        eps: The layer's eps.
        live: Channels to average over, shape (C,), bool.
        resampling: Weights for the same G.
    """
    channels = _log_ratio(moments.pooled().var, running_var, eps, live)
    estimate = float(channels.abs().mean())
    groups = moments.groups
    if groups < 2:
        return ShiftEstimate(math.exp(estimate), None)
    draws = _log_ratio(moments.reweighted(resampling.bootstrap)[1], running_var, eps, live)
    partial = _log_ratio(moments.reweighted(resampling.jackknife)[1], running_var, eps, live)
    means, scale = draws.abs().mean(dim=-1), math.sqrt(groups / (groups - 1))
    corrected = max(0.0, 2.0 * estimate - float(means.mean()))
    by_jackknife = jackknife_error(partial.abs().mean(dim=-1))
    half = t975(groups - 1) * max(float(means.std()) * scale, by_jackknife)
    above, below = _left(channels, draws.std(dim=0) * scale)
    low, high = max(0.0, corrected - half - above), corrected + half + below
    return ShiftEstimate(math.exp(corrected), Interval(math.exp(low), math.exp(high)))


LEFT_ABOVE = math.sqrt(2 / math.pi) * (2 - math.sqrt(2))
"""Most that the corrected estimate of one abs(d) lies above it, in units of its standard error.

With an estimate N(d, 1) of d and F(d, v) = E abs(N(d, v)), one bootstrap leaves in the mean
2 F(d, 1) - F(d, 2) - abs(d): 0.47 at d = 0, 0 near 0.7, -0.09 at 1.5, and nothing beyond 4. No
correction leaves nothing everywhere: abs(d) has no unbiased estimator.
"""
LEFT_BELOW = 0.094
"""Most that it lies below, likewise."""


def _left(channels: Tensor, errors: Tensor) -> tuple[float, float]:
    """What the correction may leave in the mean over channels, above and below.

    Args:
        channels: d of each live channel, shape (C,).
        errors: Its standard error, likewise.
    """
    distance = channels.abs() / errors.clamp_min(SE_FLOOR)
    above = errors[distance < 2].sum() / errors.numel()
    below = errors[distance < 4].sum() / errors.numel()
    return LEFT_ABOVE * float(above), LEFT_BELOW * float(below)


def _log_ratio(var: Tensor, running_var: Tensor, eps: float, live: Tensor) -> Tensor:
    """Of live channels, shape (..., C)."""
    return log_ratio(var, running_var, eps)[..., live]


def geometric_interval(estimate: float, leave_one_out: Tensor) -> Interval | None:
    """Jackknife interval of a geometric mean.

    Args:
        estimate: Mean over channels of the log ratio, all groups together.
        leave_one_out: The same with each group left out, shape (G,).

    Returns:
        The interval of exp(estimate), its standard error floored at :data:`SE_FLOOR`; ``None``
        with fewer than two groups.
    """
    groups = leave_one_out.shape[0]
    if groups < 2:
        return None
    half = t975(groups - 1) * max(jackknife_error(leave_one_out), SE_FLOOR)
    return Interval(math.exp(estimate - half), math.exp(estimate + half))


def jackknife_error(leave_one_out: Tensor) -> float:
    """Standard error of an estimate from its values with each group left out, shape (G,)."""
    groups = leave_one_out.shape[0]
    deviations = leave_one_out - leave_one_out.mean()
    return math.sqrt((groups - 1) / groups * float(deviations.square().sum()))
