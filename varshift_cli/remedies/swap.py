"""Put another noise where a model has dropout, in place: ``swap_dropout(model, Uout(0.1))``."""

from __future__ import annotations

import copy
from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from varshift_cli.errors import UsageError
from varshift_cli.nn import GaussianDropout, Uout
from varshift_cli.records import DropoutChange

_NOISES = (_DropoutNd, Uout, GaussianDropout)


def swap_dropout(
    model: nn.Module, replacement: nn.Module, *, names: Collection[str] | None = None
) -> tuple[DropoutChange, ...]:
    """Replace dropout modules by copies of another module; train again afterwards.

    Args:
        model: Changed in place. Parameters, buffers and their names stay as they are.
        replacement: What to put there: ``Uout(0.1)``, ``nn.Dropout(0.1)``, ``nn.Identity()``.
        names: Paths of the dropouts to replace; by default all that are registered before the
            last BatchNorm, since those behind it disturb none.

    Returns:
        What was changed.

    Raises:
        UsageError: There is no such dropout module; functional calls can only be edited by hand.
    """
    places = dropouts_before_batch_norm(model) if names is None else _named(model, names)
    if not places:
        raise UsageError(
            "the model has no dropout module before its last BatchNorm",
            hint="Functional calls (F.dropout in forward) cannot be swapped from outside: varshift "
            "scan gives their file and line. For a dropout registered later, give names=[...].",
        )
    return tuple(
        put(model, name, _like(copy.deepcopy(replacement), old)) for name, old in places.items()
    )


def dropouts_before_batch_norm(model: nn.Module) -> dict[str, nn.Module]:
    """Dropout modules by path, those registered before the last BatchNorm."""
    found: dict[str, nn.Module] = {}
    waiting: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _NOISES):
            waiting[name] = module
        elif isinstance(module, _BatchNorm):
            found |= waiting
            waiting = {}
    return found


def put(model: nn.Module, name: str, new: nn.Module) -> DropoutChange:
    """Put a module at a path."""
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    old = owner.get_submodule(leaf)
    owner._modules[leaf] = new  # noqa: SLF001 - as setattr does, but for names like "0" as well
    return DropoutChange(name, repr(old), repr(new))


def _named(model: nn.Module, names: Collection[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise UsageError(f"the model has no module {name!r}")
        if not isinstance(modules[name], _NOISES):
            kind = type(modules[name]).__name__
            raise UsageError(f"{name} is no dropout module but {kind}")
    return {name: modules[name] for name in names}


def _like(new: nn.Module, old: nn.Module) -> nn.Module:
    return new.train(old.training)
