"""What follows the layer table: why, why not, the effect, the verdict, what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import (
    LEVEL_BOUNDS,
    Describe,
    Effect,
    Finding,
    FindingLevel,
    LayerRecord,
    Level,
    Report,
    Status,
    worst_layer,
)
from varshift_cli.report.bars import COLOURS
from varshift_cli.report.screen import Style, block, pairs
from varshift_cli.report.text import count, interval, layer_name, percent, ratio, visible

GUTTER = 10

_FINDING_COLOURS = {
    FindingLevel.ERROR: "bold red",
    FindingLevel.WARNING: "bold",
    FindingLevel.NOTE: "dim",
}
_FRESH = LEVEL_BOUNDS[Level.FINE]  # stale factors within this ratio of 1 are no cause of anything


def why(report: Report, style: Style) -> list[Text]:
    """The findings, each with what else would look the same: *Note* if none of them is a fault."""
    lines: list[Text] = []
    for index, finding in enumerate(report.findings):
        label = "Why" if has_faults(report) else "Note"
        lines += _finding("" if index else label, finding, style)
    return lines


def has_faults(report: Report) -> bool:
    """Whether a finding is more than a note."""
    return any(each.level is not FindingLevel.NOTE for each in report.findings)


def skipped(report: Report, style: Style) -> list[Text]:
    """The layers that were not measured, and why."""
    lines: list[Text] = []
    for index, each in enumerate(report.skipped):
        body = Text(f"{layer_name(each.name)}: {visible(each.reason)}", "dim")
        lines += block("" if index else "Skipped", body, style, gutter=GUTTER)
    return lines


def cleared(report: Report, style: Style) -> list[Text]:
    """The usual suspects that the measurement clears: *Not why*, or *Checked* if all is well."""
    suspects = []
    stale = [each.factors.stale for each in report.layers if each.factors.stale is not None]
    if stale and max(stale) < _FRESH and min(stale) > 1 / _FRESH:
        suspects.append(f"buffers are fresh (stale {_range(stale)})")
    if report.layers and not report.dropouts:
        suspects.append("no dropout in this network")
    if not suspects:
        return []
    label = "Not why" if has_faults(report) else "Checked"
    return block(label, Text("; ".join(suspects)), style, gutter=GUTTER)


def effect(report: Report, style: Style) -> list[Text]:
    """What recalibration changes in the outputs; nothing if that was not measured."""
    lines: list[Text] = []
    sentences = _effects(report.effect, report.calibration.samples) if report.effect else []
    for index, sentence in enumerate(sentences):
        lines += block("" if index else "Effect", Text(sentence), style, gutter=GUTTER)
    return lines


def verdict(report: Report, style: Style) -> list[Text]:
    """One line: the gate's answer, or the worst layer's level."""
    word, colour, sentence = _verdict(report)
    gutter = max(GUTTER, len(word) + 2)
    return block(word, Text(sentence), style, gutter=gutter, label_style=colour)


def next_steps(report: Report, style: Style, *, typed: Sequence[str]) -> list[Text]:
    """Commands to run next, with the user's own file and options."""
    path = report.checkpoint.path
    if path is None:
        return []
    model = visible(shlex.join([path, *typed]))
    rows = []
    if _is_repairable(report):
        purpose = "repairs the statistics; writes a new file"
        rows.append((f"varshift fix {model} --recalibrate", purpose))
    if has_faults(report):
        code = visible(report.findings[0].code)
        rows.append((f"varshift explain {code}", "what it is, and what to do about it"))
    elif report.verdict.status is Status.NOT_GATED:
        rows.append((f"varshift scan {model} --max-shift 1.25", "in CI, so that it stays so"))
    labelled = [("" if index else "next", *row) for index, row in enumerate(rows)]
    return pairs(labelled, style, gutter=GUTTER, remark_style="dim")


def _finding(label: str, finding: Finding, style: Style) -> list[Text]:
    colour = _FINDING_COLOURS[finding.level]
    body = Text.assemble((visible(finding.code), colour), " ", visible(finding.message))
    lines = block(label, body, style, gutter=GUTTER)
    for rival in finding.rivals:
        indent = GUTTER + len(finding.code) + 1
        lines += block("", Text(f"or {visible(rival)}", "dim"), style, gutter=indent)
    return lines


def _effects(measured: Effect, samples: int) -> list[str]:
    on = f"(on these {count(samples, 'sample')})"
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


def _verdict(report: Report) -> tuple[str, str, str]:
    status = report.verdict.status
    worst = worst_layer(report.layers)
    if status is Status.NOT_GATED or report.verdict.threshold is None:
        return _ungated(report, worst)
    threshold = f"{report.verdict.threshold:g}"
    decisive = _decisive(report)
    if status is Status.FAIL and (decisive is None or report.verdict.worst_shift is None):
        name = layer_name(report.verdict.worst_layer or "")
        return "FAIL", "bold red", f"the running statistics of {name} are not finite"
    about = "" if decisive is None else _about(decisive)
    if status is Status.FAIL:
        above = [each for each in report.layers if _is_above(each, report.verdict.threshold)]
        many = f"{len(above)} of {count(len(report.layers), 'layer')}"
        return "FAIL", "bold red", f"worst {about}; {many} above {threshold}"
    if status is Status.INCONCLUSIVE:
        more = f"more --samples decide about {threshold}"
        return "INCONCLUSIVE", "bold yellow", f"{about}: {more}"
    return "PASS", "bold green", f"no layer above {threshold}; worst {about}"


def _ungated(report: Report, worst: LayerRecord | None) -> tuple[str, str, str]:
    if worst is None or worst.level is None:
        return "UNKNOWN", "bold red", "no layer could be measured"
    colour = COLOURS[worst.level]
    if worst.level is Level.FINE:
        measured = sum(each.shift is not None for each in report.layers)
        holds = "the BatchNorm layer holds" if measured == 1 else f"all {measured} layers hold"
        return "FINE", "bold green", f"{holds} in eval(); worst {_about(worst)}"
    bound = max(bound for bound in LEVEL_BOUNDS.values() if bound <= (worst.shift or 0.0))
    above = [each for each in report.layers if (each.shift or 0.0) >= bound]
    many = f"{len(above)} of {count(len(report.layers), 'layer')} above {bound:g}"
    return worst.level.value.upper(), colour, f"worst {_about(worst)}; {many}"


def _about(layer: LayerRecord) -> str:
    spread = interval(layer.shift_interval)
    shift = ratio(layer.shift or 0.0)
    return f"{layer_name(layer.name)}, shift {shift}" + (f" ({spread})" if spread else "")


def _decisive(report: Report) -> LayerRecord | None:
    """The record that the verdict names; of several calls of one layer, the one with its shift."""
    name, shift = report.verdict.worst_layer, report.verdict.worst_shift
    return next((each for each in report.layers if (each.name, each.shift) == (name, shift)), None)


def _is_above(layer: LayerRecord, threshold: float) -> bool:
    return layer.shift_interval is not None and layer.shift_interval.low > threshold


def _is_repairable(report: Report) -> bool:
    """Whether a remedy of some finding is a ``varshift fix``, and the buffers are not repaired."""
    if report.buffers.describe is Describe.CLEAN:
        return False
    codes = [each.code for each in report.findings]
    remedies = [remedy for code in codes for remedy in report.remedies.get(code, ())]
    return any(remedy.how.startswith("varshift fix") for remedy in remedies)
