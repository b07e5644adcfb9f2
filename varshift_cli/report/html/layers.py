"""The table of all layers: sortable, and filtered by words and by level where scripts run."""

from __future__ import annotations

from collections.abc import Sequence

from varshift_cli.records import Level, Report, Status
from varshift_cli.report.html.columns import COLUMNS, Column, Row
from varshift_cli.report.judged import JudgedLayer, judged_layers
from varshift_cli.report.markup import html_text
from varshift_cli.report.text import count


def table(report: Report) -> str:
    """The section with the table and what narrows it down."""
    judged = judged_layers(report)
    columns = [each for each in COLUMNS if _is_used(each, report)]
    head = "".join(_header(each) for each in columns)
    rows = "".join(
        _row(Row(report, each, index), columns) for index, each in enumerate(judged, start=1)
    )
    return (
        '<section id="layers"><h2>Layers</h2>\n'
        f"{_controls(judged, gated=_is_gated(report))}"
        '<div class="wide"><table class="sortable">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div></section>\n"
    )


def _controls(judged: Sequence[JudgedLayer], *, gated: bool) -> str:
    levels = [
        level for level in reversed(Level) if any(each.layer.level is level for each in judged)
    ]
    boxes = "".join(
        f'<label><input type="checkbox" name="level" value="{level.value}" checked> '
        f'<span class="level {level.value}">{level.value}</span></label>'
        for level in levels
    )
    if any(each.layer.level is None for each in judged):
        boxes += '<label><input type="checkbox" name="level" value="" checked> not measured</label>'
    if gated:
        boxes += '<label><input type="checkbox" id="only-failing"> only what did not pass</label>'
    return (
        '<form class="controls" autocomplete="off">'
        '<label>Find <input type="search" id="find" placeholder="name, cause, dropout"></label>'
        f'{boxes}<label><input type="checkbox" id="more"> all figures</label>'
        f'<output id="shown">{count(len(judged), "layer")}</output></form>\n'
    )


def _header(column: Column) -> str:
    kinds = " ".join(_classes(column))
    return (
        f'<th scope="col" class="{kinds}" aria-sort="none" title="{html_text(column.about)}">'
        f'<button type="button">{column.title}</button></th>'
    )


def _row(row: Row, columns: Sequence[Column]) -> str:
    level = "" if row.layer.level is None else row.layer.level.value
    cells = "".join(_cell(row, column) for column in columns)
    outcome = row.judged.outcome.value
    return (
        f'<tr id="layer-{row.index}" data-level="{level}" data-outcome="{outcome}">{cells}</tr>\n'
    )


def _cell(row: Row, column: Column) -> str:
    shown, key = column.cell(row)
    kinds = " ".join(_classes(column))
    by = "" if key is None else f' data-by="{html_text(str(key))}"'
    return f'<td class="{kinds}"{by}>{shown}</td>'


def _classes(column: Column) -> list[str]:
    kinds = ["number"] if column.is_number else ["words"]
    return [*kinds, "more"] if column.is_more else kinds


def _is_gated(report: Report) -> bool:
    return report.verdict.status is not Status.NOT_GATED


def _is_used(column: Column, report: Report) -> bool:
    if column.title == "gate":
        return _is_gated(report)
    if column.title == "batch":
        return any(each.factors.batch is not None for each in report.layers)
    return True
