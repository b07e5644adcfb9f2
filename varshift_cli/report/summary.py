"""What follows the layer table: why, why not, the effect, the verdict, what to run next.

The sentences themselves are those of :mod:`varshift_cli.report.wording`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import Describe, Level, Outcome, Report, Status, outcome_of
from varshift_cli.report.bars import COLOURS
from varshift_cli.report.paragraphs import (
    BOUND,
    GUTTER,
    finding_lines,
    gate_command,
    next_lines,
)
from varshift_cli.report.screen import Style, block, blocks
from varshift_cli.report.text import visible
from varshift_cli.report.wording import (
    cleared_suspects,
    effect_sentences,
    gate_remarks,
    harmed,
    has_faults,
    is_without_labels,
    judgement,
)

_VERDICT_COLOURS = {
    **{level.value.upper(): colour for level, colour in COLOURS.items()},
    "FINE": "bold green",
    "PASS": "bold green",
    "INCONCLUSIVE": "bold yellow",
    "FAIL": "bold red",
    "UNCHECKED": "bold red",
    "UNKNOWN": "bold red",
}


def why(report: Report, style: Style) -> list[Text]:
    """The findings, each with what else would look the same: *Note* if none of them is a fault."""
    return finding_lines("Why" if has_faults(report) else "Note", report.findings, style)


def cleared(report: Report, style: Style) -> list[Text]:
    """The usual suspects that the measurement clears: *Not why*, or *Checked* if all is well."""
    suspects = cleared_suspects(report)
    if not suspects:
        return []
    label = "Not why" if has_faults(report) else "Checked"
    return block(label, Text("; ".join(suspects)), style, gutter=GUTTER)


def effect(report: Report, style: Style) -> list[Text]:
    """What recalibration changes in the outputs; nothing if that was not measured."""
    return blocks("Effect", map(Text, effect_sentences(report)), style, gutter=GUTTER)


def verdict(report: Report, style: Style) -> list[Text]:
    """The gate's answer, or the worst layer's level; below it what was set aside, and why."""
    said = judgement(report)
    gutter = max(GUTTER, len(said.word) + 2)
    colour = _VERDICT_COLOURS[said.word]
    lines = block(said.word, Text(said.sentence), style, gutter=gutter, label_style=colour)
    for remark in gate_remarks(report):
        lines += block("", Text(remark, "dim"), style, gutter=GUTTER)
    return lines


def next_steps(report: Report, style: Style, *, typed: Sequence[str]) -> list[Text]:
    """Commands to run next, with the user's own file and options, or what to give first."""
    path = report.checkpoint.path
    if path is None:
        return []
    model = visible(shlex.join([path, *typed]))
    rows = []
    if _is_repairable(report):
        rows.append(_repair(report, model))
    if has_faults(report):
        code = visible(report.findings[0].code)
        rows.append((f"varshift explain {code}", "what it is, and what to do about it"))
    elif report.verdict.status is Status.NOT_GATED:
        rows += _gate(report, model)
    return next_lines(rows, style)


def _gate(report: Report, model: str) -> list[tuple[str, str]]:
    """A gate that the network passes today: the usual threshold, or itself as a baseline.

    None where no gate would: nothing was measured, or a shift has no interval.
    """
    measured = [layer for layer in report.layers if layer.shift is not None]
    passes = all(outcome_of(layer, BOUND) is Outcome.PASS for layer in measured)
    known = all(layer.shift_interval or layer.level is Level.FINE for layer in measured)
    if not measured or not known:
        return []
    return [gate_command(f"varshift scan {model}", passes=passes)]


def _repair(report: Report, model: str) -> tuple[str, str]:
    """The repair to run next, and why; what is known to do harm is not advised."""
    if _is_of_other_data(report):
        purpose = "these are others: no repair of the statistics is due by them"
        return "scan and fix with the data of training as --data", purpose
    figure = harmed(report.effect)
    if figure is not None:
        purpose = f"recalibration lowers {figure} here; is the other repair better?"
        return f"varshift fix {model} --dry-run", purpose
    if report.effect is not None and report.effect.adapted and report.effect.gain is None:
        if is_without_labels(report):
            return "give --data with labels", "they tell whether a repair is for the better"
        return f"varshift fix {model} --metric file.py:f", "your own figure decides"
    return f"varshift fix {model}", "repairs the statistics; writes a new file"


def _is_of_other_data(report: Report) -> bool:
    """Whether ``--train-data`` told that the statistics fit those data, and not these."""
    return any(
        each.code == "VS501" and "stale_on_train_data" in each.evidence for each in report.findings
    )


def _is_repairable(report: Report) -> bool:
    """Whether a remedy of some finding is a ``varshift fix``, and the buffers are not repaired."""
    if report.buffers.describe is Describe.CLEAN:
        return False
    codes = [each.code for each in report.findings]
    if "VS408" in codes:  # no statistics help a network that computes NaN
        return False
    remedies = [remedy for code in codes for remedy in report.remedies.get(code, ())]
    return any(remedy.how.startswith("varshift fix") for remedy in remedies)
