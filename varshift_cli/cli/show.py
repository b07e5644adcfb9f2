"""Records onto stdout, in the format that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from varshift_cli.cli import output
from varshift_cli.cli.options import FixFormatName, FormatName, Order
from varshift_cli.config import Config
from varshift_cli.records import Report
from varshift_cli.report import FORMATS, fix_to_json, recorded_options, render_table

if TYPE_CHECKING:
    from varshift_cli.records import FixRecord


@dataclass(frozen=True, slots=True)
class View:
    """How to show."""

    format: FormatName = FormatName.TABLE
    order: Order = Order.SHIFT
    all_layers: bool = False
    typed: tuple[str, ...] = ()
    """Options to repeat in the commands to run next."""
    config: Config | None = None
    """Given for a saved report: what it records and this does not say is repeated then."""

    def __post_init__(self) -> None:
        """Refuse before the work begins what could not be shown after it."""
        FORMATS[self.format.value].ready()


def show_report(report: Report, view: View) -> None:
    """Write a report to stdout."""
    if view.format is not FormatName.TABLE:
        output.emit(FORMATS[view.format.value].render(report))
        return
    typed = view.typed
    if view.config is not None:
        typed = recorded_options(report, arch=view.config.arch, data=view.config.data)
    style = output.style_of(sys.stdout)
    output.emit(
        render_table(report, style, all_layers=view.all_layers, order=view.order, typed=typed)
    )


def fix_format(said: FixFormatName | None, config: Config) -> FixFormatName:
    """The format of a fix: the file's word counts where it is one that a fix has."""
    if said is None and config.format == FixFormatName.JSON:
        return FixFormatName.JSON
    return said or FixFormatName.TABLE


def show_fix(record: FixRecord, format: FixFormatName, typed: Sequence[str]) -> None:  # noqa: A002
    """Write what a fix did to stdout.

    Args:
        record: What was done.
        format: Table or JSON.
        typed: Options to repeat in the command to run next.
    """
    if format is FixFormatName.JSON:
        output.emit(fix_to_json(record))
        return
    from varshift_cli.report import render_fix

    output.emit(render_fix(record, output.style_of(sys.stdout), typed=typed))
