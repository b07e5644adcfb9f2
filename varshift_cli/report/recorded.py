"""The options with which a saved report was made, as far as it holds them: to be typed again."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from varshift_cli.records import Report

_CALL = re.compile(r"(.+?:[A-Za-z_][\w.]*)(\(.*\))?", re.DOTALL)
"""``model.py:build(p=0.5)``: what is called, and with what."""
_APART = "  "
"""Between what names the data and what is said of them."""
_UNKNOWN = "..."
"""In place of arguments that the report cut short, for the user to fill in."""


def recorded_options(
    report: Report, *, arch: str | None = None, data: str | None = None
) -> tuple[str, ...]:
    """Model and data of a report as arguments: ``("--arch", "model.py:Net", "--data", ...)``.

    Args:
        report: As it was saved.
        arch: What the settings file names already, and need not be typed.
        data: Likewise.
    """
    checkpoint = report.checkpoint
    options = ["--allow-pickle"] if checkpoint.container == "module" and not checkpoint.arch else []
    options += _called("--arch", checkpoint.arch, arch) if checkpoint.arch else []
    options += ["--key", checkpoint.key] if checkpoint.key else []
    named = (report.calibration.data or "").partition(_APART)[0]
    return (*options, *(_called("--data", named, data) if named else ()))


def _called(option: str, call: str, known: str | None) -> list[str]:
    found = _CALL.fullmatch(call)
    target, arguments = (call, None) if found is None else found.groups()
    if target == known:
        return []
    return [option, target, *_arguments(f"{option}-arg", arguments or "()")]


def _arguments(option: str, text: str) -> list[str]:
    """``(p=0.5, where='none')`` as ``--arch-arg p=0.5 --arch-arg where=none``."""
    try:
        call = ast.parse(f"_{text}", mode="eval").body
        assert isinstance(call, ast.Call)
        given = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        return [option, _UNKNOWN]
    return [part for name, value in given.items() for part in (option, f"{name}={_typed(value)}")]


def _typed(value: Any) -> str:
    """A value as it is typed, so that it is read as the same again."""
    if isinstance(value, str):
        return json.dumps(value) if _means_something_else(value) else value
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
    return text if json.loads(text) == value else repr(value)


def _means_something_else(text: str) -> bool:
    """Whether a word would be read as a number, a list, a file."""
    if text.startswith("@"):
        return True
    for read in (json.loads, ast.literal_eval):
        try:
            read(text)
        except (ValueError, SyntaxError):
            continue
        return True
    return False
