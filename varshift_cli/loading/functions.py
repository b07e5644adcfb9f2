"""``--forward``, ``--metric`` and ``--noise``: single functions and types of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

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


def load_noise(specs: Sequence[str], search_dirs: Sequence[Path]) -> tuple[type, ...]:
    """The module types that the user calls noise.

    Raises:
        UsageError: If one cannot be imported or is no type of module.
    """
    types = []
    for spec in specs:
        target = Target.parse(spec, "--noise")
        found = import_target(target, search_dirs, UsageError)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            what = found.__name__ if isinstance(found, type) else f"a {type(found).__name__}"
            raise UsageError(
                f"--noise {target.label} is {what}, not a subclass of torch.nn.Module",
                hint="Name the class of the layer that draws the noise.",
            )
        types.append(found)
    return tuple(types)


def _load(spec: str, option: str, search_dirs: Sequence[Path]) -> Callable[..., Any]:
    target = Target.parse(spec, option)
    function = import_target(target, search_dirs, UsageError)
    if not callable(function):
        raise UsageError(f"{option} {target.label} is a {type(function).__name__}, not a function")
    found: Callable[..., Any] = function
    return found
