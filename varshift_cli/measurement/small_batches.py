"""What training's own batch size does to the statistics: the pass behind the factor *batch*.

In training, BN normalises each batch by its own statistics, and the running variance averages the
unbiased variances within batches. Where the samples of a batch are few or alike, that average is
below the variance of the population, T (theory: E[batch var] = S2 - s_b2/m for m samples whose
means vary by s_b2). ``T_batch`` repeats this: dropout on, batches of B samples, BN by the batch;
per channel the mean over batches of the unbiased variance (ddof 1), each batch weighing the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from varshift_cli.errors import UsageError
from varshift_cli.instrument.calls import BatchNormCall, NoiseCall, normalise_by_batch
from varshift_cli.instrument.sites import BatchNormKey
from varshift_cli.measurement.regroup import cut_batches
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch
from varshift_cli.statistics import GroupMoments


@dataclass(frozen=True, slots=True, eq=False)
class BatchVariances:
    """Variances within batches of one BN call, averaged by group.

    Attributes:
        count: Batches in each group, shape (G,), float64.
        var: Mean over a group's batches of the unbiased variance, shape (G, C), float64; 0 where
            a group has no batch.
    """

    count: Tensor
    var: Tensor

    def pooled(self) -> Tensor:
        """Mean over all batches, shape (C,)."""
        return (self.count @ self.var) / self.count.sum()

    def leave_one_out(self) -> Tensor | None:
        """The mean without the batches of one group, shape (G, C); None if a group has none."""
        if bool((self.count == 0).any()) or self.count.shape[0] < 2:
            return None
        weighted = self.count.unsqueeze(1) * self.var
        return (weighted.sum(0) - weighted) / (self.count.sum() - self.count).unsqueeze(1)


class BatchRegime:
    """``T_batch``: dropout on, BN by the batch, as in training.

    Args:
        samples: Keys and groups of the batches, as cut to the size of training.
        seed: Of the masks.
    """

    def __init__(self, samples: Samples, *, seed: int) -> None:
        self._samples = samples
        self._seed = seed
        self._count: dict[BatchNormKey, Tensor] = {}
        self._total: dict[BatchNormKey, Tensor] = {}

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Note the variance within this batch, and normalise by it."""
        var = GroupMoments.of(call.input).pooled().var
        count = self._count.setdefault(call.key, torch.zeros(self._samples.count).double())
        total = self._total.setdefault(
            call.key, torch.zeros(self._samples.count, var.shape[0]).double()
        )
        group = _group_of(self._samples.groups[batch])
        count[group] += 1
        total[group] += var
        return normalise_by_batch(call)

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Always on."""
        return call.apply(self._seed, self._samples.keys[batch])

    def gathered(self) -> dict[BatchNormKey, BatchVariances]:
        """What was noted, by BN call."""
        return {
            key: BatchVariances(count, self._total[key] / count.clamp(min=1).unsqueeze(1))
            for key, count in self._count.items()
        }


def batches_of_training(
    batches: Sequence[Batch], samples: Samples, size: int
) -> tuple[Sequence[Batch], Samples]:
    """Batches of the size used in training, filled at random; what is left over is left out.

    Raises:
        UsageError: Fewer than two samples a batch, fewer samples than one batch, or batches that
            cannot be cut.
    """
    total = sum(batch.size for batch in batches)
    if not 2 <= size <= total:
        raise UsageError(
            f"--train-batch-size {size}: expected 2 to {total:,}, the number of samples",
            hint="Give the batch size of training, per device; more --samples allow a larger one.",
        )
    cut = cut_batches(batches, samples, size)
    if cut is None:
        raise UsageError(
            "--train-batch-size needs data with one row per sample in every tensor; these batches "
            "cannot be cut to another size",
            hint="Leave the option out; 'stale' then holds what small batches do.",
        )
    return cut


def _group_of(groups: Tensor) -> int:
    """The group of a batch: that of its middle sample. Samples come in order of their groups."""
    return int(groups[groups.shape[0] // 2])
