"""The program: its commands and their order."""

from __future__ import annotations

from typing import Annotated

import typer

from varshift_cli import __version__
from varshift_cli.cli.check import check
from varshift_cli.cli.diff import diff
from varshift_cli.cli.errors import guarded
from varshift_cli.cli.explain import explain
from varshift_cli.cli.fix import fix
from varshift_cli.cli.inspect import inspect
from varshift_cli.cli.lint import lint
from varshift_cli.cli.report import report
from varshift_cli.cli.scan import scan

app = typer.Typer(
    epilog="Example: varshift scan model.pt --arch model.py:Net --data calib.npz",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"varshift {__version__}")
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, metavar="", help="show it"),
]


@app.callback()
def varshift(*, version: _Version = False) -> None:
    """Find BatchNorm layers that dropout has misled, learn why, and repair them.

    Options may also stand in ./varshift.toml, or in ./pyproject.toml: tool.varshift.

    Exit codes: 0 done or within the threshold, 1 beyond it, 2 unusable input,
    3 nothing to measure, 4 undecided, 5 fix declined, 70 our bug, 130 interrupted.
    """


app.command(epilog="Example: varshift scan model.pt --arch model.py:Net --data data.py:loader")(
    guarded(scan)
)
app.command(epilog="Example: varshift fix model.pt --recalibrate --holdout test.npz")(guarded(fix))
app.command(epilog="Example: varshift inspect model.pt --arch model.py:Net --data calib.npz")(
    guarded(inspect)
)
app.command(epilog="Example: varshift lint model.safetensors")(guarded(lint))
app.command(epilog="Example: varshift check report.json --max-shift 1.25")(guarded(check))
app.command(epilog="Example: varshift report report.json --format markdown")(guarded(report))
app.command(epilog="Example: varshift diff before.json after.json")(guarded(diff))
app.command(epilog="Example: varshift explain VS101")(guarded(explain))
