"""Finds the state dict inside a checkpoint: by content first, by name where several would do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.pickles import Opaque
from varshift_cli.loading.containers.tensors import TensorRef
from varshift_cli.loading.containers.walking import (
    Path,
    children,
    is_module,
    module_tensors,
    state_of,
)

_PREFERRED = ("state_dict", "model_state_dict", "model", "net", "module", "network", "weights")
_OPTIMIZER = re.compile(r"^(optim|opt_|scaler|lr_sched|scheduler|grad_scaler)", re.IGNORECASE)
_EMA = re.compile(r"(^|[^a-z])(ema|swa|averaged?)([^a-z]|$)|^ema", re.IGNORECASE)
_DEPTH = 4
_SHOWN = 8
_MAX_VISITS = 100_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A group of named tensors somewhere in the file."""

    path: Path
    tensors: Mapping[str, TensorRef]
    module: bool
    """Whether it is a pickled module rather than a dict."""
    others: tuple[str, ...]
    """Names of entries that are not tensors."""

    @property
    def key(self) -> str:
        """Dotted path; empty for the file itself."""
        return ".".join(self.path)

    @property
    def is_ema(self) -> bool:
        """Whether its name says that it holds averaged weights."""
        return any(names_an_average(part) for part in self.path)

    @property
    def has_statistics(self) -> bool:
        """Whether BatchNorm buffers are among the tensors."""
        return any(name.endswith("running_mean") for name in self.tensors)

    def rank(self) -> tuple[bool, int, bool, int, int]:
        """Sorts the likeliest first: raw, well-known name, statistics, shallow, large."""
        last = self.path[-1] if self.path else ""
        named = _PREFERRED.index(last) if last in _PREFERRED else len(_PREFERRED)
        return (
            self.is_ema,
            named,
            not self.has_statistics,
            -len(self.tensors),
            len(self.path),
        )


def names_an_average(name: str) -> bool:
    """Whether a name says that what it names is averaged: ema, swa, averaged."""
    return _EMA.search(name) is not None


def candidates(root: Any) -> list[Candidate]:
    """Every group of tensors that could be a model's, the likeliest first."""
    found: list[Candidate] = []
    pending: list[tuple[Path, Any]] = [((), root)]
    visits = 0
    while pending and visits < _MAX_VISITS:
        path, value = pending.pop(0)
        visits += 1
        candidate = as_candidate(path, value)
        if candidate is not None:
            found.append(candidate)
        if len(path) < _DEPTH and not is_module(value) and not _is_optimizer(value):
            pending.extend(
                ((*path, name), item)
                for name, item in children(value)
                if isinstance(item, Mapping | Opaque | list | tuple) and not _OPTIMIZER.match(name)
            )
    return sorted(found, key=Candidate.rank)


def as_candidate(path: Path, value: Any) -> Candidate | None:
    """The value as a group of tensors, if it is one."""
    if isinstance(value, TensorRef) or _is_optimizer(value):
        return None
    if is_module(value):
        tensors = module_tensors(value)
        return Candidate(path, tensors, True, ()) if tensors else None
    items = dict_of(value)
    tensors = {
        name: item
        for name, item in items.items()
        if isinstance(name, str) and isinstance(item, TensorRef)
    }
    texts = sum(isinstance(name, str) for name in items)
    if not tensors or 2 * texts < len(items):
        return None
    others = tuple(name for name in items if isinstance(name, str) and name not in tensors)
    return Candidate(path, tensors, False, others)


def dict_of(value: Any) -> Mapping[Any, Any]:
    """The mapping that this value is, or that its pickled class was a kind of."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Opaque):
        return value.items or state_of(value)
    return {}


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and "param_groups" in value and "state" in value


def choose(root: Any, where: str) -> tuple[Candidate, tuple[str, ...]]:
    """The likeliest candidate, and what should be said about the others.

    Raises:
        CheckpointError: If there is none.
    """
    found = candidates(root)
    if not found and isinstance(root, Opaque) and str(root.origin).startswith("__torch__."):
        raise CheckpointError(
            f"{where} is TorchScript without parameters or buffers: it was frozen, and BatchNorm "
            "folded into the weights",
            hint="Give the module as it was before torch.jit.freeze.",
        )
    if not found:
        raise CheckpointError(
            f"{where} holds no state dict: found {describe(root)}",
            hint="Expected a dict of parameter names to tensors, as torch.save(model.state_dict(), "
            "...) writes.",
        )
    best = found[0]
    return best, tuple(_notes(best, found[1:]))


def _notes(best: Candidate, rest: Sequence[Candidate]) -> list[str]:
    """What a user may want to know about the choice."""
    notes = []
    averaged = next((c for c in rest if c.is_ema and len(c.tensors) > 1), None)
    if averaged is not None and not best.is_ema:
        notes.append(
            f"raw and EMA weights are both there: raw taken; --key {averaged.key} for the other"
        )
    rivals = [c for c in rest if c.path and c is not averaged and c.has_statistics and not c.is_ema]
    if rivals:
        listed = ", ".join(f"{c.key} ({len(c.tensors)} tensors)" for c in rivals[:_SHOWN])
        notes.append(f"{best.key or 'the top level'} taken; also there: {listed}; see --key")
    if best.is_ema and best.path:
        notes.append(f"only averaged weights are there: {best.key} taken")
    return notes


def find(root: Any, key: str, where: str) -> Candidate:
    """The group of tensors at a dotted key, whose parts may contain dots themselves.

    Raises:
        CheckpointError: If nothing is there, or no tensors; lists what is.
    """
    path = resolve(root, key)
    if path is None:
        raise CheckpointError(
            f"{where} has nothing at --key {key!r}; it holds {describe(root)}",
            hint=_keys_hint(root),
        )
    value = root
    for part in path:
        value = dict(children(value))[part]
    candidate = as_candidate(path, value)
    if candidate is None:
        raise CheckpointError(
            f"{where}: --key {key!r} is no state dict but {describe(value)}",
            hint=_keys_hint(root),
        )
    return candidate


def resolve(root: Any, key: str) -> Path | None:
    """The path that a dotted key spells, trying every way to split it."""
    if key == "":
        return ()
    pending: list[tuple[Path, Any, str]] = [((), root, key)]
    visits = 0
    while pending and visits < _MAX_VISITS:
        path, value, rest = pending.pop()
        visits += 1
        for name, item in children(value):
            if name == rest:
                return (*path, name)
            if rest.startswith(f"{name}."):
                pending.append(((*path, name), item, rest[len(name) + 1 :]))
    return None


def _keys_hint(root: Any) -> str:
    found = candidates(root)[:_SHOWN]
    if [c.key for c in found] == [""]:
        return "The file itself is the state dict: leave --key out."
    keys = [repr(c.key) for c in found]
    return f"State dicts in this file: {', '.join(keys)}." if keys else "It holds no state dict."


def describe(value: Any) -> str:
    """What a value is, in a few words, for a message."""
    if isinstance(value, TensorRef):
        return f"one tensor of shape {value.shape}"
    if isinstance(value, Opaque):
        return f"an object of {value.origin}" if value.origin else "an object of a computed kind"
    if isinstance(value, Mapping):
        names = [f"{name!r}" if isinstance(name, str) else f"{name!s:.40}" for name in value]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"a dict with {', '.join(names[:_SHOWN])}{more}" if names else "an empty dict"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
