"""The sentences that every format for people shares: verdict, effect, what is cleared.

Names in them are already made visible (:func:`varshift_cli.report.text.visible`); markup is for
each format to escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from varshift_cli.records import (
    LEVEL_BOUNDS,
    Effect,
    FindingLevel,
    LayerRecord,
    Level,
    Report,
    Status,
    worst_layer,
)
from varshift_cli.report.text import count, interval, layer_name, percent, ratio

_FRESH = LEVEL_BOUNDS[Level.FINE]  # stale factors within this ratio of 1 are no cause of anything


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict in words."""

    word: str
    """``PASS``, ``FAIL``, ``INCONCLUSIVE``; not gated, the worst level, or ``UNKNOWN``."""
    sentence: str


def judgement(report: Report) -> Judgement:
    """The gate's answer, or the worst layer's level."""
    status = report.verdict.status
    threshold = report.verdict.threshold
    if status is Status.NOT_GATED or threshold is None:
        return _ungated(report, worst_layer(report.layers))
    decisive = _decisive(report)
    if status is Status.FAIL and (decisive is None or report.verdict.worst_shift is None):
        name = layer_name(report.verdict.worst_layer or "")
        return Judgement("FAIL", f"the running statistics of {name} are not finite")
    about = "" if decisive is None else _about(decisive)
    if status is Status.FAIL:
        above = [each for each in report.layers if is_above(each, threshold)]
        many = f"{len(above)} of {count(len(report.layers), 'layer')}"
        return Judgement("FAIL", f"worst {about}; {many} above {threshold:g}")
    if status is Status.INCONCLUSIVE:
        more = f"more --samples decide about {threshold:g}"
        return Judgement("INCONCLUSIVE", f"{about}: {more}")
    return Judgement("PASS", f"no layer above {threshold:g}; worst {about}")


def is_above(layer: LayerRecord, threshold: float) -> bool:
    """Whether the whole interval lies above a threshold: the layer fails the gate."""
    return layer.shift_interval is not None and layer.shift_interval.low > threshold


def has_faults(report: Report) -> bool:
    """Whether a finding is more than a note."""
    return any(each.level is not FindingLevel.NOTE for each in report.findings)


def cleared_suspects(report: Report) -> list[str]:
    """The usual suspects that the measurement clears."""
    suspects = []
    stale = [each.factors.stale for each in report.layers if each.factors.stale is not None]
    if stale and max(stale) < _FRESH and min(stale) > 1 / _FRESH:
        suspects.append(f"buffers are fresh (stale {_range(stale)})")
    if report.layers and not report.dropouts:
        suspects.append("no dropout in this network")
    return suspects


def effect_sentences(report: Report) -> list[str]:
    """What recalibration changes in the outputs; nothing if that was not measured."""
    measured = report.effect
    if measured is None:
        return []
    on = f"(on these {count(report.calibration.samples, 'sample')})"
    scores = measured.accuracy
    if scores and scores.eval is not None and scores.recalibrated is not None:
        before, after = percent(scores.eval), percent(scores.recalibrated)
        known = f"accuracy {before} in eval() as it is, {after} recalibrated {on}"
        return [known, *_changed(measured)]
    changes = _changed(measured)
    if not changes and measured.relative_l2 is not None:
        changes = [
            f"recalibration moves the outputs by {percent(measured.relative_l2)} (relative L2)"
        ]
    return [*changes, f"whether for the better, only labels tell {on}"] if changes else []


def _changed(measured: Effect) -> list[str]:
    share = measured.changed_predictions
    if share is None:
        return []
    if share == 0:
        return ["recalibration changes no prediction"]
    kl = "" if measured.kl is None else f", mean KL {measured.kl:.2g} nats"
    return [f"recalibration changes {percent(share)} of the predictions{kl}"]


def _range(values: Sequence[float]) -> str:
    low, high = ratio(min(values)), ratio(max(values))
    return low if low == high else f"{low}-{high}"


def _ungated(report: Report, worst: LayerRecord | None) -> Judgement:
    if worst is None or worst.level is None:
        return Judgement("UNKNOWN", "no layer could be measured")
    if worst.level is Level.FINE:
        measured = sum(each.shift is not None for each in report.layers)
        holds = "the BatchNorm layer holds" if measured == 1 else f"all {measured} layers hold"
        return Judgement("FINE", f"{holds} in eval(); worst {_about(worst)}")
    bound = max(bound for bound in LEVEL_BOUNDS.values() if bound <= (worst.shift or 0.0))
    above = [each for each in report.layers if (each.shift or 0.0) >= bound]
    many = f"{len(above)} of {count(len(report.layers), 'layer')} above {bound:g}"
    return Judgement(worst.level.value.upper(), f"worst {_about(worst)}; {many}")


def _about(layer: LayerRecord) -> str:
    spread = interval(layer.shift_interval)
    shift = ratio(layer.shift or 0.0)
    return f"{layer_name(layer.name)}, shift {shift}" + (f" ({spread})" if spread else "")


def _decisive(report: Report) -> LayerRecord | None:
    """The record that the verdict names; of several calls of one layer, the one with its shift."""
    name, shift = report.verdict.worst_layer, report.verdict.worst_shift
    return next((each for each in report.layers if (each.name, each.shift) == (name, shift)), None)
