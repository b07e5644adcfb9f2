"""The screens of ``varshift diff``: two checkpoints, or two reports, side by side."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import (
    Change,
    CheckpointDiff,
    ReportDiff,
    ShiftChange,
    StatisticsChange,
)
from varshift_cli.report.bars import COLOURS
from varshift_cli.report.paragraphs import GUTTER, finding_lines, next_lines, note_lines
from varshift_cli.report.screen import PLAIN, Style, block, spaced, table, to_text
from varshift_cli.report.text import count, interval, layer_name, ratio, visible

_SHOWN = 16
_MOVED = 1.05
"""Ratio of variances from which a layer counts as moved."""
_CHANGE_COLOURS = {Change.WORSE: "bold red", Change.BETTER: "green"}


def render_checkpoint_diff(
    diff: CheckpointDiff, style: Style = PLAIN, *, all_layers: bool = False
) -> str:
    """Two files' statistics layer by layer, what that means, and what to run next."""
    layers = sorted(diff.layers, key=lambda each: -_distance(each))
    moved = [each for each in layers if not each.same_statistics]
    shown = layers if all_layers else moved[:_SHOWN]
    blocks = (
        _header(diff, style, _contents(diff)),
        [
            *table(_STATISTICS, [_statistics_row(each) for each in shown], style),
            *_rest(len(layers) - len(shown), len(moved)),
        ],
        [
            *finding_lines("Tells", diff.findings, style),
            *note_lines("Note", diff.notes, style, colour=""),
            *_only(diff, style),
        ],
        [*_statistics_verdict(diff, moved, style), *_next_checkpoint(diff, style)],
    )
    return to_text(spaced(blocks), style)


def render_report_diff(diff: ReportDiff, style: Style = PLAIN, *, all_layers: bool = False) -> str:
    """Two reports layer by layer, the layers that got worse first."""
    told = [each for each in diff.layers if each.change is not Change.SAME]
    shown = list(diff.layers) if all_layers else told[:_SHOWN]
    rest = len(diff.layers) - len(shown)
    blocks = (
        _header(diff, style, count(len(diff.layers), "layer") + " in both"),
        [
            *table(_SHIFTS, [_shift_row(each) for each in shown], style),
            *_rest(rest, len(told)),
        ],
        [*note_lines("Note", diff.notes, style, colour=""), *_only(diff, style)],
        [*_shift_verdict(diff, style), *_next_report(diff, style)],
    )
    return to_text(spaced(blocks), style)


_STATISTICS = ("layer", "channels", "variance B/A", "spread", "mean shift", "weight, bias", "")
_SHIFTS = ("layer", "before", "95 %", "after", "95 %", "change", "cause")


def _header(diff: CheckpointDiff | ReportDiff, style: Style, facts: str) -> list[Text]:
    rows = [("A", diff.before), ("B", diff.after)]
    lines = [Text.assemble(label.ljust(GUTTER), (visible(path), "bold")) for label, path in rows]
    return [*lines, *block("", Text(facts, "dim"), style, gutter=GUTTER)]


def _contents(diff: CheckpointDiff) -> str:
    same, other = diff.same_weights, diff.other_weights
    weights = "equal" if not other else f"{other} of {same + other} differ"
    return f"{count(len(diff.layers), 'BatchNorm layer')} in both; other tensors: {weights}"


def _rest(hidden: int, told: int) -> list[Text]:
    if hidden <= 0:
        return []
    return [Text(f"  {hidden} more; {told} in all changed; --all shows them", "dim")]


def _statistics_row(each: StatisticsChange) -> list[Text]:
    affine = {True: "equal", False: "differ", None: "none"}[each.same_affine]
    remark = "equal" if each.same_statistics else "permuted" if each.permuted else ""
    return [
        Text(layer_name(each.name)),
        Text(str(each.num_features)),
        Text(_ratio(each.variance_ratio)),
        Text(_ratio(each.variance_spread)),
        Text("-" if each.mean_shift is None else f"{each.mean_shift:.2g}"),
        Text(affine),
        Text(remark, "bold" if each.permuted else "dim"),
    ]


def _ratio(value: float | None) -> str:
    return "-" if value is None else ratio(value)


def _shift_row(each: ShiftChange) -> list[Text]:
    causes = dict.fromkeys(cause or "-" for cause in (each.cause_before, each.cause_after))
    return [
        Text(layer_name(each.name)),
        Text(_ratio(each.before), COLOURS[each.level_before] if each.level_before else ""),
        Text(interval(each.before_interval)),
        Text(_ratio(each.after), COLOURS[each.level_after] if each.level_after else ""),
        Text(interval(each.after_interval)),
        Text(each.change.value, _CHANGE_COLOURS.get(each.change, "dim")),
        Text(visible(" -> ".join(causes))),
    ]


def _only(diff: CheckpointDiff | ReportDiff, style: Style) -> list[Text]:
    lines: list[Text] = []
    for label, names in (("Only in A", diff.only_before), ("Only in B", diff.only_after)):
        if names:
            body = Text(", ".join(layer_name(name) for name in names))
            lines += block(label, body, style, gutter=GUTTER + 1)
    return lines


def _statistics_verdict(
    diff: CheckpointDiff, moved: Sequence[StatisticsChange], style: Style
) -> list[Text]:
    if not moved:
        body = f"the statistics of all {len(diff.layers)} layers are equal to the last bit"
        return block("EQUAL", Text(body), style, gutter=GUTTER, label_style="bold")
    largest = moved[0]
    far = sum(_distance(each) >= _MOVED for each in moved)
    body = (
        f"the statistics of {len(moved)} of {count(len(diff.layers), 'layer')} differ, {far} by "
        f"more than {_MOVED}; most in {layer_name(largest.name)}, variance times "
        f"{_ratio(largest.variance_ratio)}"
    )
    return block("DIFFER", Text(body), style, gutter=GUTTER, label_style="bold")


def _distance(each: StatisticsChange) -> float:
    """How far the variances are apart, in either direction or only from channel to channel."""
    ratio_ = each.variance_ratio or 1.0
    return max(ratio_, 1.0 / ratio_, each.variance_spread or 1.0)


def _shift_verdict(diff: ReportDiff, style: Style) -> list[Text]:
    tally = Counter(each.change for each in diff.layers)
    parts = [f"{tally[each]} {each.value}" for each in Change if tally[each]]
    word = "WORSE" if tally[Change.WORSE] else "BETTER" if tally[Change.BETTER] else "SAME"
    colour = {"WORSE": "bold red", "BETTER": "bold green"}.get(word, "bold")
    body = ", ".join(parts) or "no layer in both"
    body += "; no change beyond noise" if word == "SAME" else ", beyond both intervals"
    return block(word, Text(body), style, gutter=GUTTER, label_style=colour)


def _next_checkpoint(diff: CheckpointDiff, style: Style) -> list[Text]:
    rows = []
    if diff.findings:
        rows.append((f"varshift explain {diff.findings[0].code}", "what it is, and what to do"))
    path = visible(shlex.quote(diff.after))
    rows.append((f"varshift scan {path}", "with --arch and --data: which of the two fits"))
    return next_lines(rows, style)


def _next_report(diff: ReportDiff, style: Style) -> list[Text]:
    after = visible(shlex.quote(diff.after))
    command = f"varshift check {after} --max-shift 1.25"
    return next_lines([(command, "the gate on the later one")], style)
