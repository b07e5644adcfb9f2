"""The program: its commands and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"varshift {__version__}")
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, metavar="", help="show it"),
]


def varshift(*, version: _Version = False) -> None:
    """Find BatchNorm layers that dropout has misled, learn why, and repair them.

    Options may also stand in ./varshift.toml, or in ./pyproject.toml: tool.varshift.

    Exit codes: 0 done or within the threshold, 1 beyond it, 2 unusable input,
    3 nothing to measure, 4 undecided, 5 fix declined, 70 our bug, 130 interrupted.
    """


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "scan": (
        scan,
        "Example: varshift scan model.pt --arch model.py:Net --data data.py:loader",
    ),
    "fix": (
        fix,
        "Example: varshift fix model.pt --recalibrate --holdout test.npz",
    ),
    "inspect": (
        inspect,
        "Example: varshift inspect model.pt --arch model.py:Net --data calib.npz",
    ),
    "lint": (
        lint,
        "Example: varshift lint model.safetensors",
    ),
    "check": (
        check,
        "Example: varshift check report.json --max-shift 1.25",
    ),
    "report": (
        report,
        "Example: varshift report report.json --format markdown",
    ),
    "diff": (
        diff,
        "Example: varshift diff before.json after.json",
    ),
    "explain": (
        explain,
        "Example: varshift explain VS101",
    ),
}
"""Name -> the function, and the example that ends its help."""


def program(names: Iterable[str]) -> typer.Typer:
    """The program with these commands."""
    made = typer.Typer(
        epilog="Example: varshift scan model.pt --arch model.py:Net --data calib.npz",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(varshift)
    for name in names:
        function, example = COMMANDS[name]
        made.command(name, epilog=example)(guarded(function))
    return made


app = program(COMMANDS)


def program_for(arguments: Sequence[str]) -> typer.Typer:
    """The program as far as these arguments need it.

    Typer builds every command before it looks at the first argument; where that names one, the
    others need not be built, which is a fifth of the time that ``check`` takes.
    """
    return program([arguments[0]]) if arguments and arguments[0] in COMMANDS else app
