"""``varshift lint``: what the buffers alone tell; runs no model, and no torch where it can."""

from __future__ import annotations

import sys

import typer

from varshift_cli.cli import options


def lint(
    model: options.Model,
    *,
    key: options.Key = None,
    format: options.ScreenFormat = None,  # noqa: A002  the option's name
    all: options.All = None,  # noqa: A002  the option's name
) -> None:
    """Judge the BatchNorm buffers of a file by themselves; runs no model.

    Only the BatchNorm tensors are read. Exit code 0 whatever is found: this is a report, no gate.
    """
    from varshift_cli.cli import output
    from varshift_cli.cli.choices import screen_of
    from varshift_cli.config import load_config
    from varshift_cli.report import lint_to_json, render_lint
    from varshift_cli.static import lint_checkpoint

    config = load_config()
    found = lint_checkpoint(model, config.key if key is None else key)
    if screen_of(format, config) is options.Screen.JSON:
        output.emit(lint_to_json(found))
    else:
        style = output.style_of(sys.stdout)
        output.emit(render_lint(found, style, all_layers=bool(all or config.all)))
    raise typer.Exit(0)
