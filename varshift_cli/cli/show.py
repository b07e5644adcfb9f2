"""Records onto stdout, in the format that was asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from varshift_cli.cli import output
from varshift_cli.cli.options import FormatName, Order
from varshift_cli.records import FixRecord, Report
from varshift_cli.report import fix_to_json, render_fix, render_table, to_json


@dataclass(frozen=True, slots=True)
class View:
    """How to show."""

    format: FormatName = FormatName.TABLE
    order: Order = Order.SHIFT
    all_layers: bool = False
    typed: tuple[str, ...] = ()
    """Options to repeat in the commands to run next."""


def show_report(report: Report, view: View) -> None:
    """Write a report to stdout."""
    if view.format is FormatName.JSON:
        output.emit(to_json(report))
        return
    style = output.style_of(sys.stdout)
    output.emit(
        render_table(report, style, all_layers=view.all_layers, order=view.order, typed=view.typed)
    )


def show_fix(record: FixRecord, view: View) -> None:
    """Write what a fix did to stdout."""
    if view.format is FormatName.JSON:
        output.emit(fix_to_json(record))
        return
    output.emit(render_fix(record, output.style_of(sys.stdout), typed=view.typed))
