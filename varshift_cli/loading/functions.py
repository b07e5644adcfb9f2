"""``--forward`` and ``--metric``: single functions of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from varshift_cli.errors import UsageError
from varshift_cli.loading.importing import Target, import_target


def load_forward(spec: str, search_dirs: Sequence[Path]) -> Callable[..., Any]:
    """The function that calls the model: ``(model, batch) -> outputs``.

    Raises:
        UsageError: If it cannot be imported or is no function.
    """
    return _load(spec, "--forward", search_dirs)


def load_metric(spec: str, search_dirs: Sequence[Path]) -> Callable[..., Any]:
    """The user's own figure: ``(outputs, labels) -> number``, higher is better.

    Raises:
        UsageError: If it cannot be imported or is no function.
    """
    return _load(spec, "--metric", search_dirs)


def _load(spec: str, option: str, search_dirs: Sequence[Path]) -> Callable[..., Any]:
    target = Target.parse(spec, option)
    function = import_target(target, search_dirs, UsageError)
    if not callable(function):
        raise UsageError(f"{option} {target.label} is a {type(function).__name__}, not a function")
    found: Callable[..., Any] = function
    return found
