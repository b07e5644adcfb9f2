"""Walks over what a pickle holds: dicts, lists, and the modules of a pickled model.

A pickled ``nn.Module`` is a class name and a state with ``_parameters``, ``_buffers`` and
``_modules``; a TorchScript object is a class name and its attributes. Either way the tensors'
names can be told without building anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.pickles import Opaque
from varshift_cli.loading.containers.tensors import TensorRef

Path = tuple[str, ...]

MAX_DEPTH = 64
_MAX_VISITS = 1_000_000
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")


def state_of(value: Opaque) -> dict[Any, Any]:
    """An object's attributes as written: its state, or the first part of a two-part state."""
    state = value.state
    if isinstance(state, tuple) and state and isinstance(state[0], dict):
        state = state[0]
    return state if isinstance(state, dict) else {}


def is_module(value: Any) -> bool:
    """Whether this is a pickled ``nn.Module`` (or a TorchScript object)."""
    if not isinstance(value, Opaque):
        return False
    if value.origin is not None and value.origin.module.startswith("__torch__"):
        return True
    state = state_of(value)
    return all(isinstance(state.get(part), dict) for part in _MODULE_PARTS)


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Named parts of a container or object; list items are named by their index."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key if isinstance(key, str) else f"{key!s:.80}", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield str(index), item
    elif is_module(value):
        yield from _module_children(value)
    elif isinstance(value, Opaque):
        yield from children(value.items or state_of(value))
        yield from children(value.elements)


def _module_children(module: Opaque) -> Iterator[tuple[str, Any]]:
    state = state_of(module)
    if all(isinstance(state.get(part), dict) for part in _MODULE_PARTS):
        skipped = state.get("_non_persistent_buffers_set")
        hidden = skipped if isinstance(skipped, set | frozenset) else frozenset()
        for part in _MODULE_PARTS:
            for name, item in state[part].items():
                if isinstance(name, str) and name not in hidden:
                    yield name, item
    else:
        yield from children(state)


def module_tensors(module: Any) -> dict[str, TensorRef]:
    """Dotted name -> tensor of a pickled module, as its ``state_dict()`` would name them."""
    found: dict[str, TensorRef] = {}
    pending: list[tuple[str, int, Any]] = [("", 0, module)]
    visits = 0
    while pending:
        prefix, depth, owner = pending.pop()
        inner: list[tuple[str, int, Any]] = []
        for name, item in _module_children(owner):
            visits += 1
            if isinstance(item, TensorRef):
                found[prefix + name] = item
            elif is_module(item) and depth < MAX_DEPTH:
                inner.append((f"{prefix}{name}.", depth + 1, item))
        pending.extend(reversed(inner))
        # Modules that hold each other many times over have more names than there are atoms.
        if visits > _MAX_VISITS:
            raise CheckpointError("the pickled module holds more than a million parts")
    return found


def all_tensors(root: Any) -> Iterator[tuple[Path, TensorRef]]:
    """Every tensor anywhere in the file and one path to it; each holder is visited once."""
    pending: list[tuple[Path, Any]] = [((), root)]
    seen: set[int] = set()
    while pending:
        path, value = pending.pop()
        if isinstance(value, TensorRef):
            yield path, value
        elif (
            isinstance(value, Mapping | list | tuple | Opaque)
            and id(value) not in seen
            and len(path) < 4 * MAX_DEPTH
        ):
            seen.add(id(value))
            pending.extend(((*path, name), item) for name, item in children(value))
