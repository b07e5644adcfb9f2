"""What was concluded: findings, remedies, effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from varshift_cli.records.layers import Interval
from varshift_cli.records.levels import FindingLevel

MEAN_IS_OFF = 0.4
"""Mean shift of a layer, in standard deviations, from which more than its variance is wrong: the
digits example, severe in its variances, reads up to 0.3."""
NO_LABELS = "the data have no labels"
"""Why accuracy is unknown, where nothing was given to tell it by."""
NON_FINITE = frozenset({"VS202", "VS408"})
"""Codes that fail any gate by themselves: such a network has no meaningful output."""
NOT_FINITE = "its running statistics, or what enters it, are not finite"
"""Why a layer named by one of them fails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause found, with its evidence in numbers."""

    code: str
    level: FindingLevel
    layers: tuple[str, ...]
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    """What else would look the same, and which measurement would decide."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to do about a finding."""

    title: str
    how: str
    """A command; or file, line and the edit to make; or the call in Python."""
    needs_training: bool = False
    worst_shift: float | None = None
    """``shift`` of the worst layer that would result, tried in memory; ``None`` if not tried."""
    mean_shift: float | None = None
    """Mean over layers of the ``shift`` that would result."""
    basis: str | None = None
    """What the two hold for: ``today's weights, 128 samples``."""


@dataclass(frozen=True, slots=True)
class RegimeScores:
    """One figure as deployed, after recalibration, and with dropout on (the T pass)."""

    eval: float | None
    recalibrated: float | None
    train: float | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What recalibration changes in the model's output, on the calibration data."""

    changed_predictions: float | None
    """Share of samples whose argmax changes, 0 to 1; ``None`` unless outputs are 2-D float."""
    kl: float | None
    """Mean KL divergence, in nats, of today's softmax from the recalibrated one."""
    relative_l2: float | None
    """||recalibrated - today|| / ||recalibrated||, over all outputs."""
    accuracy: RegimeScores | None
    loss: RegimeScores | None
    """Cross-entropy in nats; for a regression the mean squared error."""
    train_gain: Interval | None = None
    """95 % interval of accuracy in ``train`` minus in ``eval``, from paired samples: above 0, the
    network is better with dropout on than as deployed."""
    metric: RegimeScores | None = None
    """The figure of ``--metric``; higher is better."""
    metric_name: str | None = None
    """Name of that function."""
    r2: RegimeScores | None = None
    """Of a regression: 1 - mean squared error / variance of the targets (ddof 0)."""
    metric_interval: Interval | None = None
    """95 % interval of ``metric`` in ``eval``."""
    r2_interval: Interval | None = None
    """95 % interval of ``r2`` in ``eval``."""
    gain: Interval | None = None
    """95 % interval of what recalibration adds to ``metric``, else to ``accuracy``, else to ``r2``,
    from paired samples: below 0, it does harm."""
    adapted: bool = False
    """Whether recalibration takes the outputs farther from those in ``train()``: the network may
    have adapted to the shift, and lose by any repair."""
