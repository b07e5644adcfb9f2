"""How a report shows itself: as its table in ``print`` and in a notebook."""

from __future__ import annotations

from varshift_cli.records import Report, draw_reports_with
from varshift_cli.report.table import render_table

_STYLE = "line-height: 1.2; white-space: pre; overflow-x: auto"


def render_notebook(report: Report) -> str:
    """The table as a piece of HTML; names in it are escaped."""
    from html import escape  # noqa: PLC0415  its table of entities takes time to load

    return f'<pre style="{_STYLE}">{escape(render_table(report))}</pre>'


draw_reports_with(text=render_table, html=render_notebook)
