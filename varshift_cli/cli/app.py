"""The program: its commands and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import typer

from varshift_cli import __version__
from varshift_cli.cli.errors import guarded


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


EXAMPLES: Mapping[str, str] = {
    "scan": "varshift scan model.pt --arch model.py:Net --data data.py:loader",
    "fix": "varshift fix model.pt --recalibrate --holdout test.npz",
    "inspect": "varshift inspect model.pt --arch model.py:Net --data calib.npz",
    "lint": "varshift lint model.safetensors",
    "check": "varshift check report.json --max-shift 1.25",
    "report": "varshift report report.json --format markdown",
    "diff": "varshift diff before.json after.json",
    "explain": "varshift explain VS101",
}
"""Each command, in the order of the help, and the example that ends its own."""


def _function_of(name: str) -> Callable[..., None]:
    """What a command runs; the file of each is imported when it is asked for."""
    if name == "scan":
        from varshift_cli.cli.scan import scan

        return scan
    if name == "fix":
        from varshift_cli.cli.fix import fix

        return fix
    if name == "inspect":
        from varshift_cli.cli.inspect import inspect

        return inspect
    if name == "lint":
        from varshift_cli.cli.lint import lint

        return lint
    if name == "check":
        from varshift_cli.cli.check import check

        return check
    if name == "report":
        from varshift_cli.cli.report import report

        return report
    if name == "diff":
        from varshift_cli.cli.diff import diff

        return diff
    from varshift_cli.cli.explain import explain

    return explain


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
        made.command(name, epilog=f"Example: {EXAMPLES[name]}")(guarded(_function_of(name)))
    return made


def program_for(arguments: Sequence[str]) -> typer.Typer:
    """The program as far as these arguments need it.

    Typer builds every command before it looks at the first argument; where that names one, the
    others need not be built, which is a fifth of the time that ``check`` takes.
    """
    named = bool(arguments) and arguments[0] in EXAMPLES
    return program([arguments[0]] if named else EXAMPLES)
