"""``varshift explain``: the catalogue of causes; needs neither torch nor a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="such as VS101; without it, all are listed")
    ] = None,
) -> None:
    """Tell what a cause is, how it shows, why, and what to do."""
    from varshift_cli.causes import CATALOGUE, find
    from varshift_cli.cli import output
    from varshift_cli.report import render_catalogue, render_cause

    style = output.style_of(sys.stdout)
    if code is None:
        output.emit(render_catalogue(CATALOGUE.values(), style))
    else:
        output.emit(render_cause(find(code), style))
