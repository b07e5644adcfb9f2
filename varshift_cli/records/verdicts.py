"""What the gate answered: for the whole report, and for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from varshift_cli.records.layers import LayerRecord
from varshift_cli.records.levels import Status


class Outcome(StrEnum):
    """The gate's answer for one layer."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    KNOWN = "known"
    """Beyond the threshold, or perhaps, but no worse than in the baseline."""
    SUPPRESSED = "suppressed"
    """Set aside in the settings, with a reason."""
    NOT_MEASURED = "not_measured"
    NOT_GATED = "not_gated"
    """No threshold and no baseline holds for this layer."""


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """The gate's answer for one call of one layer."""

    name: str
    call: int
    outcome: Outcome
    threshold: float | None
    """The largest ``shift`` allowed here; ``None`` where a baseline alone decides, or nothing."""
    reason: str | None = None
    """Why, where the threshold does not say it all."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """What was set aside, and why; never silently."""

    reason: str
    layers: tuple[str, ...]
    """Names of the layers that it concerned in this report; none if it had nothing to do."""
    pattern: str | None = None
    """The glob over layer names, as it was written."""
    code: str | None = None
    """The cause whose layers are meant."""
    expires: str | None = None
    """The last day it holds, ``YYYY-MM-DD``."""


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """What the report was compared with, and how the layers of the two differ."""

    source: str | None
    """The report's file, as it was named."""
    checkpoint: str | None
    """Path of the checkpoint that it tells of."""
    worse: tuple[str, ...] = ()
    """Layers whose interval lies above the baseline's, and that are not *fine*."""
    new: tuple[str, ...] = ()
    """Layers that the baseline lacks or did not measure; the threshold alone judges them."""
    missing: tuple[str, ...] = ()
    """Layers of the baseline that are not in this report."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer and the layer that decides it."""

    status: Status
    threshold: float | None
    worst_layer: str | None
    worst_shift: float | None
    reasons: tuple[str, ...] = ()
    """What decides, or is worth knowing, beside the threshold: one sentence each."""
    samples_needed: int | None = None
    """About how many samples would decide, where the status is ``inconclusive``."""
    unchecked: str | None = None
    """What should have been checked and could not be; nothing passes then (exit code 3)."""
    layers: tuple[LayerVerdict, ...] = ()
    """One per layer of the report, in its order; empty where ``threshold`` alone judged."""
    suppressed: tuple[Suppressed, ...] = ()
    baseline: BaselineRecord | None = None


def outcome_of(layer: LayerRecord, threshold: float | None) -> Outcome:
    """Compare one layer's interval with a threshold.

    It fails when the whole interval lies above, passes when none of it does, and is undecided
    between, or while its interval is unknown.
    """
    if layer.shift is None:
        return Outcome.NOT_MEASURED
    if threshold is None:
        return Outcome.NOT_GATED
    interval = layer.shift_interval
    if interval is not None and interval.low > threshold:
        return Outcome.FAIL
    if interval is None or interval.high > threshold:
        return Outcome.INCONCLUSIVE
    return Outcome.PASS


def layer_verdicts(layers: Sequence[LayerRecord], verdict: Verdict) -> tuple[LayerVerdict, ...]:
    """The gate's answer for each layer of a report, in order; what every format shows."""
    told = {(each.name, each.call): each for each in verdict.layers}
    return tuple(
        told.get((layer.name, layer.call))
        or LayerVerdict(
            layer.name, layer.call, outcome_of(layer, verdict.threshold), verdict.threshold
        )
        for layer in layers
    )
