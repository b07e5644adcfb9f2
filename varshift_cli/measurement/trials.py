"""Extra train passes that a rule may ask for to decide between causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor, nn

from varshift_cli.instrument import BatchNormCatalogue, BatchNormKey, borrowed
from varshift_cli.instrument.borrow import Forward
from varshift_cli.instrument.calls import BatchNormCall
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.measurement.passes import run_population
from varshift_cli.measurement.regimes import PopulationRegime
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch
from varshift_cli.statistics import GroupMoments

_MOST_CLASSES = 64


@dataclass(frozen=True, slots=True, eq=False)
class TrainTrials:
    """Train passes over the calibration batches, with one thing changed."""

    model: nn.Module
    catalogue: BatchNormCatalogue
    batches: Sequence[Batch]
    samples: Samples
    seed: int
    forward: Forward | None = None

    def by_label(self) -> Mapping[BatchNormKey, GroupMoments] | None:
        """T's moments with class labels as groups.

        ``None`` unless every batch has one whole number for each sample, of 2 to 64 classes.
        """
        given = [batch.labels for batch in self.batches]
        labels = [each for each in given if _are_classes(each)]
        if len(labels) < len(self.batches):
            return None
        classes, index = torch.unique(torch.cat(labels), return_inverse=True)
        if not 2 <= len(classes) <= _MOST_CLASSES:
            return None
        sizes = [len(keys) for keys in self.samples.keys]
        if sum(sizes) != len(index):
            return None
        groups = tuple(
            part.to(old.device)
            for part, old in zip(index.split(sizes), self.samples.groups, strict=True)
        )
        return self._pass(Samples(self.samples.keys, groups, len(classes)), None)

    def with_eps(self, eps: float) -> Mapping[BatchNormKey, GroupMoments]:
        """T's moments if every BN ran with this eps."""
        return self._pass(self.samples, eps)

    def _pass(self, samples: Samples, eps: float | None) -> Mapping[BatchNormKey, GroupMoments]:
        regime = _OtherEps(samples, noise_on=True, seed=self.seed)
        regime.other_eps = eps
        with borrowed(self.model, self.catalogue, self.forward) as instrumented:
            try:
                run_population(instrumented, self.batches, regime, lambda _index, _output: None)
            except ForwardRaised:
                return {}  # it ran before: a trial that cannot be repeated decides nothing
        return regime.gathered.moments


def _are_classes(labels: object) -> TypeGuard[Tensor]:
    return isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point()


class _OtherEps(PopulationRegime):
    """The train pass, with another eps in every BN if one is set."""

    other_eps: float | None = None

    def normalise(self, call: BatchNormCall) -> Tensor:
        """As the train pass does, with that eps."""
        if self.other_eps is not None:
            call = replace(call, eps=self.other_eps)
        return super().normalise(call)
