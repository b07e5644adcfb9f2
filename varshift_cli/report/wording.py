"""The sentences that every format for people shares: verdict, effect, what is cleared.

Names in them are already made visible (:func:`varshift_cli.report.text.visible`); markup is for
each format to escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from varshift_cli.records import (
    LEVEL_BOUNDS,
    MEAN_IS_OFF,
    NO_LABELS,
    Effect,
    Finding,
    FindingLevel,
    LayerRecord,
    LayerVerdict,
    Level,
    Outcome,
    Report,
    Status,
    layer_verdicts,
    worst_layer,
)
from varshift_cli.report.text import count, interval, layer_name, percent, ratio, visible

_FRESH = LEVEL_BOUNDS[Level.FINE]  # stale factors within this ratio of 1 are no cause of anything
_NAMED = 5  # layers named in one sentence; the rest are counted


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict in words."""

    word: str
    """``PASS``, ``FAIL``, ``INCONCLUSIVE``, ``UNCHECKED``; not gated, the worst level, or
    ``UNKNOWN``."""
    sentence: str


def judgement(report: Report) -> Judgement:
    """The gate's answer, or the worst layer's level."""
    verdict = report.verdict
    if verdict.unchecked is not None:
        return Judgement("UNCHECKED", visible(verdict.unchecked))
    if verdict.status is Status.NOT_GATED:
        return _ungated(report, worst_layer(report.layers))
    decisive = _decisive(report)
    if verdict.status is Status.FAIL and (decisive is None or verdict.worst_shift is None):
        name = layer_name(verdict.worst_layer or "")
        if any(each.code == "VS202" for each in report.findings):
            return Judgement("FAIL", f"the running statistics of {name} are not finite")
        return Judgement("FAIL", f"what enters {name} is not finite")
    about = "" if decisive is None else _about(decisive)
    told = layer_verdicts(report.layers, verdict)
    above = _above(report, told)
    if verdict.status is Status.FAIL:
        failing = sum(each.outcome is Outcome.FAIL for each in told)
        if not failing and verdict.reasons:
            return Judgement("FAIL", visible(verdict.reasons[0]))
        many = f"{failing} of {count(len(report.layers), 'layer')}"
        return Judgement("FAIL", f"worst {about}; {many} {above}")
    if verdict.status is Status.INCONCLUSIVE:
        if verdict.reasons and not any(each.outcome is Outcome.INCONCLUSIVE for each in told):
            return Judgement("INCONCLUSIVE", visible(verdict.reasons[0]))
        return Judgement("INCONCLUSIVE", f"{about}: {_more(report, decisive)}")
    return Judgement("PASS", f"no layer {above}; worst {about}")


def gate_remarks(report: Report) -> list[str]:
    """What the verdict set aside, and what else is worth knowing of it: one sentence each."""
    verdict = report.verdict
    remarks = []
    for each in verdict.suppressed:
        if each.layers:
            until = f", until {each.expires}" if each.expires else ""
            what = ", ".join(layer_name(name) for name in each.layers[:_NAMED])
            more = len(each.layers) - _NAMED
            what += f" and {more} more" if more > 0 else ""
            remarks.append(f"suppressed: {what} ({visible(each.reason)}{until})")
    if verdict.baseline is not None:
        known = sum(each.outcome is Outcome.KNOWN for each in verdict.layers)
        if known:
            layers = count(known, "layer")
            remarks.append(f"{layers} above the threshold, but no worse than in the baseline")
    remarks += _ungated_means(report)
    told = judgement(report).sentence
    return remarks + [each for each in map(visible, verdict.reasons) if each != told]


def _ungated_means(report: Report) -> list[str]:
    """That a pass on variances says nothing of means, where those are off."""
    worst = max(report.layers, key=lambda layer: layer.mean_shift or 0.0, default=None)
    if report.verdict.status is not Status.PASS or worst is None:
        return []
    if (worst.mean_shift or 0.0) <= MEAN_IS_OFF:
        return []
    name, off = layer_name(worst.name), f"{worst.mean_shift:.2f} standard deviations"
    advice = "gate on max-changed-predictions as well"
    return [f"means are not gated: in {name} it is off by {off}; {advice}"]


def has_faults(report: Report) -> bool:
    """Whether a finding is more than a note."""
    return any(each.level is not FindingLevel.NOTE for each in report.findings)


def cleared_suspects(report: Report) -> list[str]:
    """The usual suspects that the measurement clears."""
    suspects = []
    stale = [each.factors.stale for each in report.layers if each.factors.stale is not None]
    fresh = stale and max(stale) < _FRESH and min(stale) > 1 / _FRESH
    if fresh and not any(map(_is_of_buffers, report.findings)):
        suspects.append(f"buffers are fresh (stale {_range(stale)})")
    if report.layers and has_no_dropout(report):
        suspects.append("no dropout in this network")
    return suspects


_SOUND = frozenset({"VS206", "VS211", "VS402", "VS403", "VS503"})
"""Findings about counters, scales, channels or labels: the statistics may be fresh."""


def _is_of_buffers(finding: Finding) -> bool:
    """Whether a finding says that statistics do not fit the data, if by their means alone.

    By its hundred: a check of a saved report shall not wait for the catalogue.
    """
    return finding.code.startswith(("VS2", "VS3", "VS4", "VS5")) and finding.code not in _SOUND


_NAMES_NO_CAUSE = frozenset({"VS206", "VS210"})
"""Findings whose message tells what is seen, and leaves the causes to the rivals."""


def rivals(finding: Finding) -> list[str]:
    """What else would look the same: ``or ...``; or the causes themselves, where none was named."""
    first = "or"
    if finding.code in _NAMES_NO_CAUSE:
        first = "perhaps" if len(finding.rivals) == 1 else "either"
    return [f"{'or' if index else first} {each}" for index, each in enumerate(finding.rivals)]


def is_without_train(report: Report) -> bool:
    """Whether dropout was taken out of the model, so that what training saw is not known."""
    measured = [each for each in report.layers if each.shift is not None]
    return bool(measured) and all(each.factors.dropout is None for each in measured)


def has_no_dropout(report: Report) -> bool:
    """Whether there is none in the network, nor was: ``train()`` draws no noise."""
    return not report.dropouts and not is_without_train(report)


def effect_sentences(report: Report) -> list[str]:
    """What recalibration changes in the outputs; nothing if that was not measured."""
    measured = report.effect
    if measured is None:
        return []
    on = f"(on these {count(report.calibration.samples, 'sample')})"
    known = [*_by_metric(measured, on), *_by_labels(measured, on)]
    if known:
        figure = harmed(measured)
        if figure is not None:
            known.append(f"recalibration does harm: it lowers {figure} beyond noise")
        innocent = []
        if is_innocent(report):
            train = "in train()" if has_no_dropout(report) else "with dropout on"
            innocent = [f"{_INNOCENT}, and {train} it is no better than in eval()"]
        return [*known, *_changed(measured), *innocent]
    changes = _changed(measured)
    if not changes and measured.relative_l2 is not None:
        changes = [
            f"recalibration moves the outputs by {percent(measured.relative_l2)} (relative L2)"
        ]
    if measured.adapted:
        changes.append(_ADAPTED)
    whether = "whether for the better, only labels tell"
    if not is_without_labels(report):
        unscored = visible(report.unknown["effect.accuracy"])
        whether = f"whether for the better, --metric tells: {unscored}"
    return [*changes, f"{whether} {on}"] if changes else []


_ADAPTED = (
    "it takes the outputs farther from those in train(): the network may have adapted to the shift"
)


def is_without_labels(report: Report) -> bool:
    """Whether the data have no labels to tell by which outputs are better."""
    return report.unknown.get("effect.accuracy", NO_LABELS) == NO_LABELS


def harmed(effect: Effect | None) -> str | None:
    """Name of the figure that recalibration lowers beyond noise, if it does."""
    if effect is None or effect.gain is None or effect.gain.high >= 0.0:
        return None
    if effect.metric is not None:
        return visible(effect.metric_name or "metric")
    return "R2" if effect.accuracy is None else "accuracy"


_INNOCENT = "BN not guilty: every shift is fine"


def is_innocent(report: Report) -> bool:
    """Whether a bad accuracy must have another cause: overfitting, other data, labels."""
    gain = None if report.effect is None else report.effect.train_gain
    fine = bool(report.layers) and all(each.level is Level.FINE for each in report.layers)
    return fine and gain is not None and gain.low <= 0.0


def _by_metric(measured: Effect, on: str) -> list[str]:
    scores, name = measured.metric, visible(measured.metric_name or "metric")
    if scores is None or scores.eval is None or scores.recalibrated is None:
        return []
    return [
        f"{name} {scores.eval:.4g} in eval() as it is, {scores.recalibrated:.4g} recalibrated {on}"
    ]


def _by_labels(measured: Effect, on: str) -> list[str]:
    for name, scores, shown in (
        ("accuracy", measured.accuracy, percent),
        ("R2", measured.r2, "{:.3f}".format),
    ):
        if scores is not None and scores.eval is not None and scores.recalibrated is not None:
            before, after = shown(scores.eval), shown(scores.recalibrated)
            return [f"{name} {before} in eval() as it is, {after} recalibrated {on}"]
    return []


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
    below = [bound for bound in LEVEL_BOUNDS.values() if bound <= (worst.shift or 0.0)]
    bound = max(below, default=1.0)
    above = [each for each in report.layers if (each.shift or 0.0) >= bound]
    many = f"{len(above)} of {count(len(report.layers), 'layer')} above {bound:g}"
    return Judgement(worst.level.value.upper(), f"worst {_about(worst)}; {many}")


def _above(report: Report, told: Sequence[LayerVerdict]) -> str:
    """What a failing layer is: ``above 1.25``, or worse than the baseline."""
    baseline = report.verdict.baseline
    if baseline is not None:
        return f"got worse than in {visible(baseline.source or 'the baseline')}"
    thresholds = {each.threshold for each in told if each.threshold is not None}
    if len(thresholds) == 1:
        return f"above {thresholds.pop():g}"
    return "above its threshold"


def _more(report: Report, undecided: LayerRecord | None) -> str:
    """What would decide."""
    verdict = report.verdict
    told = layer_verdicts(report.layers, verdict)
    thresholds = [
        each.threshold
        for layer, each in zip(report.layers, told, strict=True)
        if layer is undecided
    ]
    threshold = next((each for each in thresholds if each is not None), None)
    about = "" if threshold is None else f" about {threshold:g}"
    if verdict.samples_needed is None:
        return f"more --samples decide{about}"
    return f"about {verdict.samples_needed:,} samples would decide{about}"


def _about(layer: LayerRecord) -> str:
    spread = interval(layer.shift_interval)
    shift = ratio(layer.shift or 0.0)
    return f"{layer_name(layer.name)}, shift {shift}" + (f" ({spread})" if spread else "")


def _decisive(report: Report) -> LayerRecord | None:
    """The record that the verdict names; of several calls of one layer, the one with its shift."""
    name, shift = report.verdict.worst_layer, report.verdict.worst_shift
    return next((each for each in report.layers if (each.name, each.shift) == (name, shift)), None)
