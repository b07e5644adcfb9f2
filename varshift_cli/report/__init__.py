"""Reports: one record in, one text out, for every format. Nothing here prints, measures or judges.

Terminal formats are drawn on a :class:`~varshift_cli.report.screen.Style`; everything else
depends on the record alone.
"""

from typing import TYPE_CHECKING, Any

from varshift_cli.report.formats import (
    FIX_FORMATS,
    FORMATS,
    Format,
    choose_format,
    format_of,
    render,
)
from varshift_cli.report.json import (
    diff_to_json,
    fix_to_json,
    from_json,
    inspection_to_json,
    lint_to_json,
    to_json,
)
from varshift_cli.report.notebook import render_notebook
from varshift_cli.report.plausible import refuse_nonsense
from varshift_cli.report.recorded import recorded_options
from varshift_cli.report.screen import PLAIN, Style
from varshift_cli.report.table import render_table
from varshift_cli.report.text import visible

if TYPE_CHECKING:
    from varshift_cli.report.cause import render_catalogue, render_cause
    from varshift_cli.report.diff import render_checkpoint_diff, render_report_diff
    from varshift_cli.report.fix import render_fix
    from varshift_cli.report.inspect import render_inspect
    from varshift_cli.report.lint import render_lint

__all__ = [
    "FIX_FORMATS",
    "FORMATS",
    "PLAIN",
    "Format",
    "Style",
    "choose_format",
    "diff_to_json",
    "fix_to_json",
    "format_of",
    "from_json",
    "inspection_to_json",
    "lint_to_json",
    "recorded_options",
    "refuse_nonsense",
    "render",
    "render_catalogue",
    "render_cause",
    "render_checkpoint_diff",
    "render_fix",
    "render_inspect",
    "render_lint",
    "render_notebook",
    "render_report_diff",
    "render_table",
    "to_json",
    "visible",
]

_LATER = (
    "render_catalogue",
    "render_cause",
    "render_checkpoint_diff",
    "render_fix",
    "render_inspect",
    "render_lint",
    "render_report_diff",
)
"""Screens of other commands, which ``varshift check`` shall not wait for."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load the screens of :data:`_LATER` on first use."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from varshift_cli.report import cause, diff, fix, inspect, lint

        for module in (cause, diff, fix, inspect, lint):
            globals().update(
                {each: getattr(module, each) for each in _LATER if hasattr(module, each)}
            )
        return globals()[name]
