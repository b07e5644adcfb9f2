"""Saved reports, as ``check`` and ``report`` read them; needs neither torch nor the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from varshift_cli.errors import ReportError
from varshift_cli.nearby import file_hint

if TYPE_CHECKING:
    from varshift_cli.records import Report

SavedReport = Annotated[
    str, typer.Argument(metavar="REPORT", help="JSON report of a scan; - reads stdin")
]


def read_report(path: str) -> Report:
    """The report in a file, or on stdin for ``-``.

    Raises:
        ReportError: It cannot be read, is no report of this schema, or holds impossible figures.
    """
    from varshift_cli.report import from_json, refuse_nonsense

    text = _read(path)
    try:
        report = from_json(text)
        refuse_nonsense(report)
    except ReportError as error:
        where = "on stdin" if path == "-" else f"in {path}"
        raise ReportError(f"{error.message} ({where})", hint=error.hint) from error
    return report


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ReportError(f"there is no report {path}", hint=file_hint(path)) from None
    except UnicodeDecodeError:
        raise ReportError(
            f"{path} is not a JSON report: it is not UTF-8 text",
            hint="varshift scan MODEL --report FILE.json makes a report of a checkpoint",
        ) from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from error
