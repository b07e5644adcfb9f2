"""``varshift check``: the gate on a saved report; needs neither torch nor the model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from varshift_cli.cli import options
from varshift_cli.errors import ReportError, UsageError


def check(
    report: Annotated[
        str, typer.Argument(metavar="REPORT", help="JSON report of a scan; - reads stdin")
    ],
    *,
    max_shift: options.MaxShift = None,
    format: options.Format = None,  # noqa: A002  the option's name
    all: options.All = None,  # noqa: A002  the option's name
    order: options.OrderBy = None,
) -> None:
    """Gate on a saved report: exit 1 if a layer is beyond the threshold."""
    from varshift_cli.cli.settings import choose
    from varshift_cli.cli.show import View, show_report
    from varshift_cli.config import load_config
    from varshift_cli.gate import exit_code, judge
    from varshift_cli.report import from_json

    config = load_config()
    saved = from_json(_read(report))
    threshold = next(
        (each for each in (max_shift, config.max_shift, saved.verdict.threshold) if each), None
    )
    if threshold is None:
        raise UsageError(
            "there is nothing to check against: no threshold was given",
            hint="--max-shift 1.25, or max-shift = 1.25 in ./varshift.toml",
        )
    judged = replace(saved, verdict=judge(saved.layers, threshold, saved.findings))
    view = View(
        format=choose(options.FormatName, format, config.format, config)
        or options.FormatName.TABLE,
        order=choose(options.Order, order, config.order, config) or options.Order.SHIFT,
        all_layers=bool(all or config.all),
    )
    show_report(judged, view)
    raise typer.Exit(exit_code(judged.verdict))


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ReportError(f"there is no report {path}") from None
    except UnicodeDecodeError:
        raise ReportError(f"{path} is not a JSON report: it is not UTF-8 text") from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from error
