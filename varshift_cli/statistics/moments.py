"""Moments of a channel, gathered group by group and merged exactly.

A moment is kept as (count, mean, m2) with ``m2`` the sum of squared deviations from the mean, in
float64. Merging follows Chan, Golub and LeVeque (1979): no large squares are subtracted, batches
of any size weigh what they hold, and the result does not depend on how samples were batched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Population:
    """Mean and unbiased variance (ddof 1) per channel over everything that was gathered."""

    count: float
    """Values per channel."""
    mean: Tensor
    """Shape (C,), float64."""
    var: Tensor
    """Shape (C,), float64; NaN when ``count`` < 2."""


def _row_moments(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Moments of every (row, channel) of a tensor over its positions.

    Args:
        x: A floating tensor of shape (N, C, *S); S may be empty.

    Returns:
        Positions per row, the mean of shape (N, C), and the sum of squared deviations of shape
        (N, C); float64, and new tensors.
    """
    rows, channels = x.shape[0], x.shape[1]
    positions = _positions(x)
    if positions == 1:
        mean = x.reshape(rows, channels).to(torch.float64, copy=True)
        return 1, mean, torch.zeros_like(mean)
    flat = _upcast(x).reshape(rows * channels, positions)
    mean, m2 = _short_rows(flat) if positions < _LONG else _in_pieces(flat)
    return positions, mean.view(rows, channels), m2.view(rows, channels)


def _positions(x: Tensor) -> int:
    return x[0, 0].numel() if x.numel() else 0


def _upcast(x: Tensor) -> Tensor:
    """Sums of half precision are taken in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


_LONG = 32
"""Positions from which :func:`_by_deviation` is the faster one (measured: 5 times at 1,024)."""


_PIECE = 2**18
"""Values whose deviations are taken at a time, on the CPU: a megabyte, which stays in the cache.
Five times faster than all of 32 MiB at once, which asks the system for fresh memory every time."""


def _in_pieces(flat: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_by_deviation` along rows, but for rounding."""
    rows = max(_PIECE // flat.shape[1], 1)
    if flat.shape[0] <= rows or flat.device.type != "cpu":
        return _by_deviation(flat, 1)
    pieces = [_by_deviation(piece, 1) for piece in torch.split(flat, rows)]
    means, squares = zip(*pieces, strict=True)
    return torch.cat(means), torch.cat(squares)


def _by_deviation(flat: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Deviations from a rounded mean, which is then corrected by what they add up to."""
    rough = flat.mean(dim=dim, keepdim=True)
    deviation = flat - rough
    rest = deviation.sum(dim=dim).double() / flat.shape[dim]
    squares = deviation.mul_(deviation).sum(dim=dim).double()
    return rough.squeeze(dim).double() + rest, squares - rest.square() * flat.shape[dim]


def _short_rows(flat: Tensor) -> tuple[Tensor, Tensor]:
    # Two passes in double accumulators inside one kernel; 3 to 14 times faster than var_mean. On
    # a (1, N*C, S) view it is contiguous, so that channels-last input cannot lose digits.
    mean, var = torch.batch_norm_update_stats(flat.unsqueeze(0), None, None, 0.0)
    return mean.double(), var.double() * flat.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows that wait to be merged: count and group of shape (rows,), mean and m2 (rows, C)."""

    count: Tensor
    mean: Tensor
    m2: Tensor
    group: Tensor


def _is_short(x: Tensor) -> bool:
    """Whether there are few positions and more samples: columns are then twice as fast as rows."""
    return 1 < _positions(x) < min(_LONG, x.shape[0])


def _column_moments(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """As :func:`_row_moments`, but of every (position, channel) over the samples.

    Returns:
        Samples, the mean of shape (positions, C), and the sum of squared deviations likewise.
    """
    samples, channels = x.shape[0], x.shape[1]
    mean, m2 = _by_deviation(_upcast(x).reshape(samples, -1), 0)
    return samples, mean.view(channels, -1).t(), m2.view(channels, -1).t()


class GroupMoments:
    """Running (count, mean, m2) for each of G groups and C channels, float64, on the CPU.

    Input may be on any device, and is summed up there. Rows are merged a good many at a time:
    merging costs the same few ops for one as for many.
    """

    __slots__ = ("_count", "_held", "_m2", "_mean", "_waiting")

    def __init__(self, groups: int, channels: int) -> None:
        # By name: the user may have made another device the default.
        self._count = torch.zeros(groups, dtype=torch.float64, device="cpu")
        self._mean = torch.zeros(groups, channels, dtype=torch.float64, device="cpu")
        self._m2 = torch.zeros(groups, channels, dtype=torch.float64, device="cpu")
        self._waiting: list[_Rows] = []
        self._held = 0

    @property
    def groups(self) -> int:
        """G."""
        return self._count.shape[0]

    @property
    def count(self) -> Tensor:
        """Values per channel in each group, shape (G,)."""
        self._settle()
        return self._count

    @property
    def mean(self) -> Tensor:
        """Mean of each group, shape (G, C)."""
        self._settle()
        return self._mean

    @property
    def m2(self) -> Tensor:
        """Sum of squared deviations from the group's mean, shape (G, C)."""
        self._settle()
        return self._m2

    def add(self, x: Tensor, group: Tensor | int) -> None:
        """Add one batch.

        Args:
            x: Shape (N, C, *S).
            group: The group of each row, shape (N,), int64; or one group for the whole batch.
        """
        by_column = isinstance(group, int) and _is_short(x)
        each, mean, m2 = _column_moments(x) if by_column else _row_moments(x)
        rows = mean.shape[0]
        count = torch.full((rows,), each, dtype=torch.float64, device=x.device)
        if isinstance(group, int):
            group = torch.full((rows,), group, dtype=torch.int64, device=x.device)
        self._waiting.append(_Rows(count, mean, m2, group))
        self._held += mean.numel()
        if self._held > _MOST_HELD:
            self._settle()

    def merge(self, other: GroupMoments) -> None:
        """Add what another gathered, group by group."""
        self._settle()
        self._merge(other.count, other.mean, other.m2)

    def _settle(self) -> None:
        """Merge the rows that wait."""
        if not self._waiting:
            return
        waiting, self._waiting, self._held = self._waiting, [], 0
        rows = waiting[0]
        if len(waiting) > 1:
            rows = _Rows(
                torch.cat([each.count for each in waiting]),
                torch.cat([each.mean for each in waiting]),
                torch.cat([each.m2 for each in waiting]),
                torch.cat([each.group for each in waiting]),
            )
        self._merge(*(summed.cpu() for summed in _sum_rows(rows, self.groups)))

    def _merge(self, count: Tensor, mean: Tensor, m2: Tensor) -> None:
        total = self._count + count
        share = torch.where(total > 0, count / total.clamp(min=1), 0.0).unsqueeze(1)
        delta = mean - self._mean
        # Out of place: what was gathered under inference mode may be merged outside it.
        self._mean = self._mean + delta * share
        self._m2 = self._m2 + m2 + delta.square() * (share * self._count.unsqueeze(1))
        self._count = total

    def populated(self) -> GroupMoments:
        """The same moments without empty groups."""
        keep = self.count > 0
        kept = GroupMoments(0, 0)
        kept._count, kept._mean, kept._m2 = self.count[keep], self.mean[keep], self.m2[keep]
        return kept

    @classmethod
    def of(cls, x: Tensor) -> GroupMoments:
        """Of one batch, shape (N, C, *S), as a single group."""
        moments = cls(1, x.shape[1])
        moments.add(x, 0)
        return moments

    def pooled(self) -> Population:
        """All groups together."""
        weights = torch.ones(1, self.groups, dtype=torch.float64, device="cpu")
        mean, var = self.reweighted(weights)
        return Population(float(self.count.sum()), mean[0], var[0])

    def reweighted(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance when group g is counted ``weights[d, g]`` times.

        Args:
            weights: Shape (D, G), float64, not negative.

        Returns:
            Mean and variance, each of shape (D, C).
        """
        # Centred on the overall mean first: what is squared and subtracted below is then only
        # the spread between groups, not the mean itself.
        centre = (self.count @ self.mean) / self.count.sum()
        offset = self.mean - centre
        count = (weights @ self.count).unsqueeze(1)
        first = (weights * self.count) @ offset / count
        second = weights @ self.m2 + (weights * self.count) @ offset.square()
        variance = (second - count * first.square()) / (count - 1)
        return centre + first, variance


_MOST_HELD = 2**16
"""Values that may wait to be merged, per layer: about a megabyte."""


def _sum_rows(rows: _Rows, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge rows into groups: counts (G,), means and sums of squared deviations (G, C)."""
    weight = rows.count.unsqueeze(1)
    count = torch.zeros(groups, dtype=torch.float64, device=weight.device)
    count.index_add_(0, rows.group, rows.count)
    zeros = torch.zeros(groups, rows.mean.shape[1], dtype=torch.float64, device=weight.device)
    mean = zeros.index_add(0, rows.group, rows.mean * weight)
    mean.div_(count.clamp(min=1).unsqueeze(1))
    spread = (rows.mean - mean[rows.group]).square_().mul_(weight).add_(rows.m2)
    return count, mean, zeros.index_add_(0, rows.group, spread)
