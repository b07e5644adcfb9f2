"""Builds the model that ``--arch`` names and fills it with a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from varshift_cli.errors import ArchitectureError
from varshift_cli.loading import programs
from varshift_cli.loading.arguments import (
    by_keyword,
    check_arguments,
    parameters_of,
    parse_arguments,
    show_call,
)
from varshift_cli.loading.containers import Checkpoint, StateDict
from varshift_cli.loading.importing import Target, import_target, users_code
from varshift_cli.loading.names import Fit, fit_names

_OPTION = "--arch"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model of the user's with the checkpoint's tensors in it, on CPU, flags as it was built."""

    model: nn.Module
    call: str
    """The call as it was run: ``model.py:build(p=0.5)``; empty for a model out of the file."""
    names: Mapping[str, str]
    """Parameter or buffer of the model -> name as stored, for ``Checkpoint.patch``.

    A module registered under two names is here under both.
    """
    missing_buffers: tuple[str, ...] = ()
    """Running statistics that the checkpoint lacks; the model keeps its initial values."""
    notes: tuple[str, ...] = ()
    without_noise: str | None = None
    """Why dropout cannot be seen or switched on, where it was taken out of the model."""
    fixed_batch: int | None = None
    """The only batch size that the model takes, where it was recorded at one."""


def build_model(
    arch: str, arch_args: Sequence[str], state: StateDict, *, search_dirs: Sequence[Path]
) -> BuiltModel:
    """Import, call, load.

    Args:
        arch: ``package.module:name`` or ``file.py:name``; a class, a function or a module.
        arch_args: ``name=value`` as typed.
        state: Tensors to load, all of them, and only them.
        search_dirs: Folders to import from, usually the current one, then the checkpoint's.

    Raises:
        ArchitectureError: If it cannot be imported or called, or does not fit.
        UsageError: For arguments that the callable does not have.
    """
    target = Target.parse(arch, _OPTION)
    given = parse_arguments(arch_args, "--arch-arg", search_dirs)
    made = import_target(target, search_dirs, ArchitectureError)
    model, call = _instantiate(made, target, given, state.hyper_parameters, search_dirs)
    fit = _load(model, state, call)
    return BuiltModel(model, call, fit.stored, fit.missing_statistics, fit.notes)


def open_model(checkpoint: Checkpoint, key: str | None = None) -> BuiltModel:
    """The model that a checkpoint itself holds: TorchScript, exported, or a pickled module.

    Raises:
        UsageError: If the file holds tensors only.
        CheckpointError: If it cannot be loaded, or a pickle was not allowed.
    """
    model = checkpoint.module(key)
    state = checkpoint.state_dict(key)
    own = [name for name, tensor in model.state_dict().items() if _is_tensor(tensor)]
    stored = {name: name for name in own if name in state.tensors}
    return BuiltModel(
        model,
        "",
        stored,
        notes=programs.notes_on(model),
        without_noise=programs.DROPOUT_REMOVED if programs.is_decomposed(model) else None,
        fixed_batch=programs.fixed_batch(model),
    )


def _instantiate(
    made: Any,
    target: Target,
    given: Mapping[str, Any],
    hyper_parameters: Mapping[str, Any],
    search_dirs: Sequence[Path],
) -> tuple[nn.Module, str]:
    """The module, and the call that made it."""
    if isinstance(made, nn.Module):
        if given:
            raise ArchitectureError(
                f"{target.label} is a module already, --arch-arg has nothing to be given to"
            )
        return _on_cpu(made, target.label), target.label
    if not callable(made):
        raise ArchitectureError(
            f"{target.label} is a {type(made).__name__}, not a class, function or module",
            hint="Name what builds the model: --arch model.py:Net",
        )
    known = by_keyword(parameters_of(made) or {})
    filled = {name: value for name, value in hyper_parameters.items() if name in known}
    arguments = {**filled, **given}
    call = show_call(target.label, arguments)
    check_arguments(made, arguments, target.label, "--arch-arg")
    with users_code(call, ArchitectureError, search_dirs):
        model = made(**arguments)
    if not isinstance(model, nn.Module):
        raise ArchitectureError(f"{call} returned a {type(model).__name__}, not an nn.Module")
    return _on_cpu(model, call), call


def _on_cpu(model: nn.Module, call: str) -> nn.Module:
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise ArchitectureError(
            f"{call} made tensors on the meta device, which hold no values",
            hint="Build the model without torch.device('meta').",
        )
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return model.to("cpu")
    return model


def _load(model: nn.Module, state: StateDict, call: str) -> Fit:
    """Fill the model in place.

    Raises:
        ArchitectureError: If names or shapes do not fit.
    """
    wanted = {name: tensor for name, tensor in model.state_dict().items() if _is_tensor(tensor)}
    fit = fit_names(list(state.tensors), list(wanted))
    if fit.missing or fit.unexpected:
        raise ArchitectureError(_misfit(fit, state, call, len(wanted)), hint=_misfit_hint(fit))
    tensors = {name: state.tensors[stored] for name, stored in fit.stored.items()}
    mismatched = [
        f"{name} is {_shape(tensors[name])} in the file, {_shape(tensor)} in the model"
        for name, tensor in wanted.items()
        if name in tensors and not is_lazy(tensor) and tensor.shape != tensors[name].shape
    ]
    if mismatched:
        more = f"; and {len(mismatched) - _SHOWN} more" if len(mismatched) > _SHOWN else ""
        raise ArchitectureError(
            f"{call} does not fit the checkpoint: {'; '.join(mismatched[:_SHOWN])}{more}",
            hint="Give the arguments it was trained with: --arch-arg NAME=VALUE.",
        )
    with users_code(f"loading into {call}", ArchitectureError):
        model.load_state_dict(tensors, strict=False)
    return fit


def _is_tensor(value: Any) -> bool:
    """False for what ``get_extra_state`` returns."""
    return isinstance(value, torch.Tensor)


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _misfit(fit: Fit, state: StateDict, call: str, wanted: int) -> str:
    under = f" under {state.key!r}" if state.key else ""
    served = f"{len(fit.stored)} of the model's {wanted} names are there"
    parts = [f"{call} does not fit the checkpoint's {len(state.tensors)} tensors{under}: {served}"]
    if fit.missing:
        parts.append(f"missing {_listed(fit.missing)}")
    if fit.unexpected:
        parts.append(f"unexpected {_listed(fit.unexpected)}")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def _misfit_hint(fit: Fit) -> str:
    if not fit.stored:
        return "Is it another model, or another part of the file? See --arch and --key."
    return "Give the arguments it was trained with: --arch-arg NAME=VALUE."
