"""What findings are drawn from, and the words and weights that all rules share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from varshift_cli.diagnosis.buffers import OtherDropout, other_dropout
from varshift_cli.diagnosis.evidence import Evidence
from varshift_cli.instrument import BatchNormKey, BatchNormSite
from varshift_cli.instrument.facts import ModelFacts
from varshift_cli.measurement import LayerMoments
from varshift_cli.measurement.ordering import Order
from varshift_cli.measurement.unmixed import Unmixed
from varshift_cli.records import (
    BuffersRecord,
    DropoutRecord,
    Effect,
    Finding,
    FindingLevel,
    LayerRecord,
    Level,
    Skipped,
)
from varshift_cli.statistics import GroupMoments

OTHER_DATA = "other data or preprocessing than in training: --train-data decides"
_ALIKE = 1.1
"""Highest over lowest factor up to which one figure stands for all layers."""
_WHOLE = 100.0
"""From here on decimals tell nothing."""


class Trials(Protocol):
    """Extra passes that rules may ask for; each costs about as much as the train pass."""

    def unmixed(self) -> Unmixed | None:
        """What training on unmixed batches gathers; ``None`` where nothing tells kinds apart."""

    def with_eps(self, eps: float) -> Mapping[BatchNormKey, GroupMoments]:
        """T's moments if every BN ran with this eps."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What was measured over data as in training, beside those that are scanned."""

    layers: Mapping[BatchNormKey, LayerMoments]
    samples: int


@dataclass(frozen=True, slots=True)
class Observations:
    """What the findings are drawn from."""

    layers: Sequence[LayerRecord]
    dropouts: Sequence[DropoutRecord]
    buffers: BuffersRecord
    sites: Sequence[BatchNormSite]
    missing_buffers: Sequence[str] = ()
    """Names of running buffers that the checkpoint does not hold."""
    always_on: Sequence[str] = ()
    """Names of dropouts that stay on in eval()."""
    moments: Sequence[LayerMoments] = ()
    """Of the same calls as ``layers``, in the same order."""
    samples: int = 0
    """Samples that were measured."""
    facts: ModelFacts = field(default_factory=ModelFacts)
    skipped: Sequence[Skipped] = ()
    """BN layers without usable running statistics."""
    frozen: frozenset[str] = frozenset()
    """BN that stay in eval() while the model trains."""
    averaged: str | None = None
    """Why the weights are known to be an average, if they are."""
    effect: Effect | None = None
    trials: Trials | None = None
    order: Order | None = None
    """In which the batches come, where they come in one."""
    has_classes: bool = False
    """Whether every batch has class labels."""
    train_data: TrainingData | None = None
    """What was measured over ``--train-data``, where that was given."""


@dataclass(frozen=True, eq=False)
class Question:
    """What one rule on stored statistics looks at: the layers that no earlier rule has claimed."""

    seen: Observations
    left: Sequence[Evidence]
    """Not yet explained."""
    every: Sequence[Evidence]
    """All layers with sound buffers."""

    @property
    def off(self) -> list[Evidence]:
        """Those not yet explained that differ from T beyond noise."""
        return [each for each in self.left if each.is_off]

    @property
    def other_data(self) -> tuple[str, ...]:
        """That it may be the data, as a rival: until the training data were measured too."""
        return () if self.seen.train_data is not None else (OTHER_DATA,)

    @cached_property
    def dropout(self) -> OtherDropout | None:
        """Of another probability, if that would explain the buffers."""
        return other_dropout([each.layer for each in self.every])

    @property
    def other_probability(self) -> tuple[str, ...]:
        """That dropout had another probability in training, as a rival."""
        return () if self.dropout is None else (self.dropout.told(self.seen.dropouts),)

    @property
    def unmixed_batches(self) -> tuple[str, ...]:
        """That batches, of these data or of training, were not mixed, as a rival."""
        if self.seen.order is not None:
            return ("batches that come in an order, and are not the whole: shuffle --data",)
        if not self.seen.has_classes and any(each.signed > 0.0 for each in self.off):
            return ("training data not shuffled (VS302): class labels in --data decide",)
        return ()

    def on_training_data(self, each: Evidence) -> Evidence | None:
        """The same layer on ``--train-data``, as far as it was measured there."""
        seen = self.seen.train_data
        other = None if seen is None else seen.layers.get(each.layer.key)
        if seen is None or other is None:
            return None
        target = other.train if each.target is each.layer.train else other.clean
        return replace(each, layer=other, target=target, units=seen.samples)


def finding(
    code: str,
    layers: Sequence[Evidence],
    message: str,
    evidence: Mapping[str, object],
    rivals: Sequence[str] = (),
    *,
    level: FindingLevel | None = None,
) -> Finding:
    """A finding on layers, as loud as the worst of them unless said otherwise."""
    names = tuple(dict.fromkeys(each.name for each in layers))
    measured = {
        "stale": math.exp(_mean([each.signed for each in layers])),
        "distance": _mean([each.distance for each in layers]),
        "mean_drift": _mean([each.drift_size for each in layers]),
    }
    return Finding(
        code,
        loudness([each.record for each in layers]) if level is None else level,
        names,
        message,
        {**evidence, **measured, "strength": sum(each.beyond_noise for each in layers)},
        tuple(rivals),
    )


def loudness(layers: Sequence[LayerRecord]) -> FindingLevel:
    """Error for strong and severe shifts, warning for mild ones, else a note."""
    levels = {layer.level for layer in layers}
    if levels & {Level.STRONG, Level.SEVERE}:
        return FindingLevel.ERROR
    return FindingLevel.WARNING if Level.MILD in levels else FindingLevel.NOTE


def geometric(values: Iterable[float | None]) -> float:
    """Geometric mean of those that are known; 1 without any."""
    logs = [math.log(value) for value in values if value]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def spanned(factors: Sequence[float]) -> str:
    """``0.38 to 0.52``: what layers have, from the lowest to the highest; one where they agree."""
    low, high = min(factors), max(factors)
    if high < _ALIKE * low:
        return f"about {_shown(geometric(factors))}"
    return f"{_shown(low)} to {_shown(high)}"


def _shown(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= _WHOLE else f"{factor:.2f}"


def counted(items: Sequence[object]) -> str:
    """``1 layer``, ``3 layers``."""
    return "1 layer" if len(items) == 1 else f"{len(items)} layers"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
