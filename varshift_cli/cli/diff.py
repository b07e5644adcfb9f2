"""``varshift diff``: two checkpoints, or two reports; runs no model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from varshift_cli.cli import options
from varshift_cli.errors import CheckpointNotFoundError, UsageError
from varshift_cli.nearby import file_hint

_JSON = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*["}]')
"""How a JSON report begins; a safetensors file has eight bytes before its brace."""


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="checkpoint, or JSON report")],
    after: Annotated[str, typer.Argument(metavar="B", help="another of the same kind")],
    *,
    key: options.Key = None,
    format: options.ScreenFormat = None,  # noqa: A002  the option's name
    all: options.All = None,  # noqa: A002  the option's name
) -> None:
    """Compare the statistics of two checkpoints, or two reports."""
    from varshift_cli.cli import output
    from varshift_cli.cli.choices import screen_of
    from varshift_cli.cli.saved import read_report
    from varshift_cli.config import load_config
    from varshift_cli.report import diff_to_json, render_checkpoint_diff, render_report_diff
    from varshift_cli.static import diff_checkpoints, diff_reports

    config = load_config()
    kinds = [_is_report(each) for each in (before, after)]
    if kinds[0] != kinds[1]:
        report, other = (before, after) if kinds[0] else (after, before)
        raise UsageError(
            f"{report} is a report and {other} is none: two of a kind are needed",
            hint="varshift scan MODEL --report FILE.json makes a report of a checkpoint",
        )
    style = output.style_of(sys.stdout)
    as_json = screen_of(format, config) is options.Screen.JSON
    every = bool(all or config.all)
    if kinds[0]:
        reports = diff_reports(read_report(before), read_report(after), (before, after))
        text = diff_to_json(reports) if as_json else ""
        output.emit(text or render_report_diff(reports, style, all_layers=every))
    else:
        files = diff_checkpoints(before, after, config.key if key is None else key)
        text = diff_to_json(files) if as_json else ""
        output.emit(text or render_checkpoint_diff(files, style, all_layers=every))
    raise typer.Exit(0)


def _is_report(path: str) -> bool:
    if path == "-":
        return True
    if not Path(path).exists():
        raise CheckpointNotFoundError(
            f"no such file: {path}", hint=file_hint(path, "Check the path.")
        )
    try:
        with Path(path).open("rb") as file:
            return _JSON.match(file.read(64)) is not None
    except OSError:
        return False  # a folder: told of by whoever opens it as a checkpoint
