"""The BatchNorm (BN) layers of a file, known by the names of their buffers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.buffers import TensorFile, TensorGroup
from varshift_cli.records import Skipped, dotted

Array = NDArray[np.float64]

DEAD = 1e-7
"""A hundredth of the usual eps: a stored variance below it carries no signal."""

_AVERAGED = re.compile(
    r"(^|[._])(ema|swa|averaged?|shadow|teacher|target|momentum)([._]|$)|^ema|_ema[._]|_k[._]",
    re.IGNORECASE,
)
_LEAVES = ("running_mean", "running_var", "num_batches_tracked", "weight", "bias")


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One BN layer as stored; arrays are float64 of shape (C,)."""

    name: str
    """Within its net, without a prefix."""
    shown: str
    """As reported."""
    mean: Array
    var: Array
    updates: int | None
    weight: Array | None
    bias: Array | None

    @property
    def finite(self) -> bool:
        """Whether every channel is a number that a mean and a variance can be."""
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.var).all()) and bool(
            (self.var >= 0.0).all()
        )

    @property
    def initial(self) -> bool:
        """Whether the buffers are those of a new layer."""
        return bool((self.mean == 0.0).all() and (self.var == 1.0).all())


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """The BN layers of one network in a file; a file may hold it raw and averaged."""

    key: str
    """State dict and prefix inside the file."""
    averaged: bool
    """Whether names say that its weights are an average."""
    layers: Mapping[str, Layer]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What was found in a file."""

    nets: tuple[Net, ...]
    missing: tuple[str, ...]
    """Layers that hold one half of their running statistics."""
    skipped: tuple[Skipped, ...]
    tensors: int


def read_nets(file: TensorFile) -> Contents:
    """Read the BN tensors of every state dict in a file, and nothing else."""
    nets: list[Net] = []
    missing: list[str] = []
    skipped: list[Skipped] = []
    several = sum(any(_owners(group.shapes)) for group in file.groups) > 1
    for group in file.groups:
        layers: dict[str, Layer] = {}
        for owner in _owners(group.shapes):
            shown = f"{group.key}.{owner}" if several and group.key else owner
            if not {dotted(owner, "running_mean"), dotted(owner, "running_var")} <= set(
                group.shapes
            ):
                missing.append(shown)
                continue
            try:
                layers[owner] = _read(group, owner, shown)
            except CheckpointError as problem:
                skipped.append(Skipped(shown, problem.message))
        nets += _split(group, layers)
    tensors = sum(len(group.shapes) for group in file.groups)
    return Contents(tuple(nets), tuple(missing), tuple(skipped), tensors)


def _owners(names: Iterable[str]) -> Iterator[str]:
    """Modules with a buffer that only BN has, in the order of the names."""
    seen = set()
    for name in names:
        owner, _, leaf = name.rpartition(".")
        if leaf in _LEAVES[:3] and owner not in seen:
            seen.add(owner)
            yield owner


def _read(group: TensorGroup, owner: str, shown: str) -> Layer:
    mean = group.read(dotted(owner, "running_mean")).reshape(-1)
    var = group.read(dotted(owner, "running_var")).reshape(-1)
    if mean.shape != var.shape or mean.size == 0:
        raise CheckpointError(f"its mean has {mean.size} channels and its variance {var.size}")
    return Layer(
        name=owner,
        shown=shown,
        mean=mean,
        var=var,
        updates=_count(group, dotted(owner, "num_batches_tracked")),
        weight=_affine(group, dotted(owner, "weight"), mean.size),
        bias=_affine(group, dotted(owner, "bias"), mean.size),
    )


def _count(group: TensorGroup, name: str) -> int | None:
    if name not in group.shapes or int(np.prod(group.shapes[name])) != 1:
        return None
    value = float(group.read(name).reshape(-1)[0])
    return int(value) if np.isfinite(value) else None


def _affine(group: TensorGroup, name: str, channels: int) -> Array | None:
    if group.shapes.get(name) != (channels,):
        return None
    return group.read(name)


def _split(group: TensorGroup, layers: Mapping[str, Layer]) -> list[Net]:
    """The group as one net, or as the raw and the averaged one that share it by prefixes."""
    if not layers:
        return []
    for prefix in _averaged_prefixes(layers):
        averaged = {name[len(prefix) :]: layers[name] for name in layers if name.startswith(prefix)}
        rest = {name: layers[name] for name in layers if not name.startswith(prefix)}
        raw = _under_one_prefix(rest, set(averaged))
        if raw is not None:
            key = f"{group.key}.{prefix}" if group.key else prefix
            return [Net(group.key, group.averaged, raw), Net(key.rstrip("."), True, averaged)]
    return [Net(group.key, group.averaged, layers)]


def _averaged_prefixes(names: Iterable[str]) -> list[str]:
    found = set()
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts)):
            prefix = ".".join(parts[:length]) + "."
            if _AVERAGED.search(prefix):
                found.add(prefix)
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _under_one_prefix(layers: Mapping[str, Layer], wanted: set[str]) -> dict[str, Layer] | None:
    """The layers, those that are wanted by the wanted names, if one prefix makes all of them so."""
    first = min(wanted)
    for name in layers:
        if name == first or name.endswith(f".{first}"):
            prefix = name[: len(name) - len(first)]
            if all(prefix + each in layers for each in wanted):
                return {
                    each.removeprefix(prefix) if each.removeprefix(prefix) in wanted else each: one
                    for each, one in layers.items()
                }
    return None
