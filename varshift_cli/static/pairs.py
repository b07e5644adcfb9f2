"""Rules on pairs: averaged weights beside raw ones, and layers that hold each other's values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from varshift_cli.records import Finding, FindingLevel
from varshift_cli.static.counters import gathered_alike
from varshift_cli.static.nets import Array, Contents, Layer, Net
from varshift_cli.static.values import counted, layers_of, names_of


def averaged(contents: Contents) -> Iterator[Finding]:
    """VS207: averaged weights that carry the buffers of the raw ones."""
    raw = [net for net in contents.nets if not net.averaged]
    for net in contents.nets:
        if not net.averaged:
            continue
        if not raw:
            yield _only_averaged(net)
            continue
        foreign = [
            layer
            for name, layer in net.layers.items()
            if (twin := _twin(raw[0], net, name)) is not None
            and not layer.initial
            and gathered_alike(layer, twin)
            and _other_weights(layer, twin)
        ]
        if foreign:
            yield Finding(
                "VS207",
                FindingLevel.WARNING,
                names_of(foreign),
                f"the averaged weights under {net.key!r} carry the running statistics of the raw "
                f"ones, to the last bit, in {counted(foreign)}",
                {"layers": len(foreign), "of": len(net.layers)},
                ("averaged so slowly that the two hardly differ: varshift scan --key measures it",),
            )


def _only_averaged(net: Net) -> Finding:
    return Finding(
        "VS207",
        FindingLevel.NOTE,
        names_of(list(net.layers.values())),
        "these are averaged weights (EMA or SWA); whether their running statistics were "
        "recomputed for them, the file does not tell",
        {"key": net.key},
        ("recomputed after averaging: varshift scan measures it",),
    )


def _twin(raw: Net, net: Net, name: str) -> Layer | None:
    """The raw net's layer of the same name, or of the same place where prefixes differ."""
    if name in raw.layers:
        return raw.layers[name]
    if len(net.layers) != len(raw.layers):
        return None
    return list(raw.layers.values())[list(net.layers).index(name)]


def _other_weights(layer: Layer, twin: Layer) -> bool:
    return any(
        mine is not None and theirs is not None and not np.array_equal(mine, theirs)
        for mine, theirs in ((layer.weight, twin.weight), (layer.bias, twin.bias))
    )


def twice(contents: Contents) -> Iterator[Finding]:
    """VS407: the same statistics under two names of one net."""
    for net in contents.nets:
        known: dict[bytes, list[Layer]] = {}
        for layer in net.layers.values():
            if layer.finite and not layer.initial:
                known.setdefault(layer.mean.tobytes() + layer.var.tobytes(), []).append(layer)
        groups = [layers for layers in known.values() if len(layers) > 1]
        if groups:
            members = [layer for group in groups for layer in group]
            same = sum(not _other_weights(group[0], each) for group in groups for each in group[1:])
            yield Finding(
                "VS407",
                FindingLevel.NOTE,
                names_of(members),
                f"{counted(members)} hold the same running statistics as another, to the last bit",
                {"groups": [list(names_of(group)) for group in groups], "same_affine": same},
                ("one module saved under two names", "a branch copied from another"),
            )


def permuted(contents: Contents) -> Iterator[Finding]:
    """VS405: two layers with the same values in another order."""
    known: dict[bytes, Layer] = {}
    for layer in layers_of(contents):
        if not layer.finite or layer.initial or layer.var.size < 4:
            continue
        key = sorted_values(layer.var).tobytes() + sorted_values(layer.mean).tobytes()
        other = known.setdefault(key, layer)
        if other is not layer and not gathered_alike(layer, other):
            yield Finding(
                "VS405",
                FindingLevel.WARNING,
                names_of([other, layer]),
                f"{other.shown} and {layer.shown} hold the same running statistics in another "
                "order of channels",
                {"channels": layer.var.size},
                ("channels shuffled on purpose, weights with them",),
            )


def sorted_values(values: Array) -> Array:
    """By size: equal for two layers whose channels are only in another order."""
    return np.sort(values)
