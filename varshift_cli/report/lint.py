"""The screen of ``varshift lint``: the layers as stored, and what their buffers alone tell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import FindingLevel, LintReport, StoredLayer
from varshift_cli.report.paragraphs import (
    GUTTER,
    finding_lines,
    next_lines,
    note_lines,
    skipped_lines,
)
from varshift_cli.report.screen import PLAIN, Style, block, spaced, table, to_text, wrap
from varshift_cli.report.text import count, layer_name, visible

_SHOWN = 8
_HEADS = ("layer", "channels", "updates", "variance: low, median, high", "|mean|", "tells")
_LOUD = {FindingLevel.ERROR, FindingLevel.WARNING}


def render_lint(report: LintReport, style: Style = PLAIN, *, all_layers: bool = False) -> str:
    """What was found as a screen of text.

    Args:
        report: What was found.
        style: The surface to draw on.
        all_layers: Show every layer, not only the first that tell something.
    """
    shown = list(report.layers) if all_layers else _chosen(report)
    blocks = (
        _header(report, style),
        _table(report, shown, style),
        [
            *finding_lines("Tells", report.findings, style),
            *skipped_lines("Skipped", report.skipped, style),
            *note_lines("Note", report.notes, style),
        ],
        [*_verdict(report, style), *_next(report, style)],
    )
    return to_text(spaced(blocks), style)


def _chosen(report: LintReport) -> list[StoredLayer]:
    loud = {name for each in report.findings if each.level in _LOUD for name in each.layers}
    ordered = sorted(report.layers, key=lambda layer: (layer.name not in loud, not layer.codes))
    kept = {layer.name for layer in ordered[:_SHOWN]}
    return [layer for layer in report.layers if layer.name in kept]


def _header(report: LintReport, style: Style) -> list[Text]:
    facts = (
        f"{visible(report.container)}, {count(len(report.layers), 'BatchNorm layer')} among "
        f"{count(report.tensors, 'tensor')}; read {report.bytes_read:,} of "
        f"{report.file_bytes:,} bytes, ran nothing"
    )
    path = Text(visible(report.path), "bold")
    line = Text.assemble(path, "   ", facts)
    if line.cell_len <= style.width:
        return [line]
    lines = wrap(path, style.width, fold=style.fold)
    return [*lines, *block("", Text(facts), style, gutter=2)]


def _table(report: LintReport, shown: Sequence[StoredLayer], style: Style) -> list[Text]:
    lines = table(_HEADS, [_row(layer) for layer in shown], style)
    more = len(report.layers) - len(shown)
    if lines and more:
        told = sum(bool(layer.codes) for layer in report.layers)
        lines.append(Text(f"  {more} more; {told} in all tell something; --all shows them", "dim"))
    return lines


def _row(layer: StoredLayer) -> list[Text]:
    spread = (layer.variance_low, layer.variance_median, layer.variance_high)
    numbers = [_number(each) for each in spread]
    return [
        Text(layer_name(layer.name)),
        Text(str(layer.num_features)),
        Text("none" if layer.updates is None else f"{layer.updates:,}"),
        Text("  ".join(numbers) if None not in spread else "not finite"),
        Text(_number(layer.mean_largest)),
        Text(" ".join(layer.codes), "bold"),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _verdict(report: LintReport, style: Style) -> list[Text]:
    levels = [each.level for each in report.findings]
    errors, warnings = levels.count(FindingLevel.ERROR), levels.count(FindingLevel.WARNING)
    if not errors and not warnings:
        body = "nothing in the buffers is wrong by itself; whether they fit, only a scan tells"
        return block("CLEAN", Text(body), style, gutter=GUTTER, label_style="bold green")
    parts = [count(errors, "error")] if errors else []
    parts += [count(warnings, "warning")] if warnings else []
    word = "BROKEN" if errors else "SUSPECT"
    worst = report.findings[0]
    some = ", ".join(layer_name(name) for name in worst.layers[:3])
    more = f" and {len(worst.layers) - 3} more" if len(worst.layers) > 3 else ""
    body = f"{', '.join(parts)}; first {worst.code} in {some}{more}"
    colour = "bold red" if errors else "bold yellow"
    return block(word, Text(body), style, gutter=GUTTER, label_style=colour)


def _next(report: LintReport, style: Style) -> list[Text]:
    rows = []
    if report.findings:
        rows.append((f"varshift explain {report.findings[0].code}", "what it is, and what to do"))
    path = visible(shlex.quote(report.path))
    rows.append((f"varshift scan {path}", "with --arch and --data: whether the buffers fit"))
    return next_lines(rows, style)
