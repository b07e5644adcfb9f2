"""What training gathers if batches are not mixed: one kind of sample each, one after the other.

Dropout on, BN by the batch, as in training. Each kind of sample (a class; or what stood in one
batch as they came) gets batches of its own; of each BN call the mean and the unbiased variance
(ddof 1) within such batches are kept, averaged by kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from varshift_cli.instrument.calls import BatchNormCall, NoiseCall, normalise_by_batch
from varshift_cli.instrument.sites import BatchNormKey
from varshift_cli.measurement.ordering import Order, class_labels
from varshift_cli.measurement.regroup import deal_batches
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch
from varshift_cli.statistics import GroupMoments

_USUAL_BATCH = 32
_FEWEST, _MOST_KINDS = 4, 64
"""Samples of a kind, and kinds, that can be told anything of."""


@dataclass(frozen=True, slots=True, eq=False)
class Unmixed:
    """Statistics within batches of one kind each.

    Attributes:
        by_class: Whether the kinds are classes; else the batches as they came.
        mean: By BN call, shape (K, C): the kinds in the order in which training takes them.
        var: Likewise.
    """

    by_class: bool
    mean: Mapping[BatchNormKey, Tensor]
    var: Mapping[BatchNormKey, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Batches of one kind each, the kind of each, and how many kinds there are."""

    batches: Sequence[Batch]
    samples: Samples
    kinds: Sequence[int]
    by_class: bool

    @property
    def count(self) -> int:
        """K."""
        return len(set(self.kinds))


def plan_unmixed(batches: Sequence[Batch], samples: Samples, order: Order | None) -> Plan | None:
    """How to run samples unmixed; ``None`` where nothing tells kinds apart.

    Args:
        batches: Of the calibration.
        samples: Their keys and groups.
        order: In which the batches come, where they come in one.
    """
    labels = class_labels(batches)
    if labels is not None:
        return _by_class(batches, samples, labels, as_met=order is not None and order.by_class)
    if order is None or not 2 <= len(batches) <= _MOST_KINDS:
        return None
    return Plan(batches, samples, range(len(batches)), by_class=False)


def _by_class(
    batches: Sequence[Batch], samples: Samples, labels: Sequence[Tensor], *, as_met: bool
) -> Plan | None:
    """Class after class, as they were met or else by their numbers; rare ones are left out."""
    every = torch.cat([each.cpu() for each in labels])
    if sum(len(keys) for keys in samples.keys) != len(every):
        return None
    classes, counts = torch.unique(every, return_counts=True)
    kept = [int(each) for each in classes[counts >= _FEWEST]]
    if not 2 <= len(kept) <= _MOST_KINDS:
        return None
    if as_met:
        kept.sort(key=lambda each: float((every == each).nonzero().double().mean()))
    members = [(every == each).nonzero().flatten() for each in kept]
    # Equal parts, none much smaller than a batch of training.
    parts = [each.tensor_split(-(-len(each) // _USUAL_BATCH)) for each in members]
    dealt = deal_batches(batches, samples, [run for runs in parts for run in runs])
    if dealt is None:
        return None
    kinds = [kind for kind, runs in enumerate(parts) for _ in runs]
    return Plan(*dealt, kinds, by_class=True)


class UnmixedRegime:
    """Dropout on, BN by the batch; mean and variance of what enters each BN, by kind."""

    def __init__(self, plan: Plan, *, seed: int) -> None:
        self._plan = plan
        self._seed = seed
        self._mean: dict[BatchNormKey, Tensor] = {}
        self._var: dict[BatchNormKey, Tensor] = {}

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Note what stands in this batch, and normalise by it."""
        found = GroupMoments.of(call.input).pooled()
        kind = self._plan.kinds[batch]
        share = 1.0 / sum(each == kind for each in self._plan.kinds)
        for sums, value in ((self._mean, found.mean), (self._var, found.var)):
            zeros = torch.zeros(self._plan.count, value.shape[0], dtype=torch.float64)
            sums.setdefault(call.key, zeros)[kind] += share * value
        return normalise_by_batch(call)

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Always on."""
        return call.apply(self._seed, self._plan.samples.keys[batch])

    def gathered(self) -> Unmixed:
        """What was noted."""
        return Unmixed(self._plan.by_class, self._mean, self._var)
