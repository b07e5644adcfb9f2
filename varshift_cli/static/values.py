"""Rules on the values of the buffers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from varshift_cli.records import Finding, FindingLevel
from varshift_cli.static.nets import DEAD, Contents, Layer

USUAL_EPS = 1e-5
_SMALLEST_NORMAL = 1.2e-38
"""Below it a float32 is denormal."""
_BEYOND = 1e6
"""A variance this many times its layer's median comes from a single batch gone wrong."""
_SHARE = 0.1
"""Of a layer's channels, near eps, from which eps matters."""


def layers_of(contents: Contents) -> list[Layer]:
    """All layers of all nets."""
    return [layer for net in contents.nets for layer in net.layers.values()]


def names_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """As reported."""
    return tuple(layer.shown for layer in layers)


def counted(layers: Sequence[object]) -> str:
    """``1 layer``, ``3 layers``."""
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"


def broken(contents: Contents) -> Iterator[Finding]:
    """VS202 and VS203: values that no statistics can be, and halves that are absent."""
    bad = [layer for layer in layers_of(contents) if not layer.finite]
    if bad:
        channels = {layer.shown: _bad_channels(layer) for layer in bad}
        swapped = [layer for layer in bad if _looks_swapped(layer)]
        yield Finding(
            "VS202",
            FindingLevel.ERROR,
            names_of(bad),
            f"running statistics of {counted(bad)} are not finite, or a variance is negative: "
            "eval() returns NaN or nonsense",
            {"channels": channels},
            ("mean and variance changed places in a conversion",) if swapped else (),
        )
    if contents.missing:
        yield Finding(
            "VS203",
            FindingLevel.ERROR,
            contents.missing,
            f"{counted(contents.missing)} hold one half of their running statistics only",
            {"missing": list(contents.missing)},
            ("renamed keys; compare the file's names with the model's",),
        )


def _bad_channels(layer: Layer) -> list[int]:
    good = np.isfinite(layer.mean) & np.isfinite(layer.var) & (layer.var >= 0.0)
    found: list[int] = np.flatnonzero(~good).tolist()
    return found


def _looks_swapped(layer: Layer) -> bool:
    """Whether what is stored as the mean could be the variance."""
    finite = bool(np.isfinite(layer.mean).all() and np.isfinite(layer.var).all())
    return finite and bool((layer.mean > 0.0).all()) and bool((layer.var < 0.0).any())


def never_updated(contents: Contents) -> Iterator[Finding]:
    """VS201: mean 0 and variance 1 in every channel."""
    for net in contents.nets:
        fresh = [layer for layer in net.layers.values() if layer.initial]
        if not fresh:
            continue
        moved = len(net.layers) - len(fresh)
        told = f"running statistics of {counted(fresh)} were never updated: mean 0, variance 1"
        rivals = ["trained in eval mode, where these are right: only labels can tell"]
        if moved:
            told += f"; {moved} others were"
            rivals.append("a branch that training never reached")
        if net.averaged and len(contents.nets) > 1:
            told += "; the averaged weights came without buffers"
        if any(layer.updates for layer in fresh):
            told += ", though batches were counted"
            rivals.append("reset after training, to be gathered anew")
        yield Finding(
            "VS201",
            FindingLevel.ERROR,
            names_of(fresh),
            told,
            {"layers": len(fresh), "updated_layers": moved, "updates": fresh[0].updates},
            tuple(rivals),
        )


def outliers(contents: Contents) -> Iterator[Finding]:
    """VS212: single channels far beyond their layer."""
    hit = [layer for layer in layers_of(contents) if layer.finite and _beyond(layer) > _BEYOND]
    if hit:
        yield Finding(
            "VS212",
            FindingLevel.WARNING,
            names_of(hit),
            f"in {counted(hit)} the largest variance is over a million times the median: one "
            "overflowing batch does that",
            {"largest_over_median": {layer.shown: _beyond(layer) for layer in hit}},
            ("channels that really differ so much: varshift scan measures them",),
        )


def _beyond(layer: Layer) -> float:
    alive = layer.var[layer.var >= DEAD]
    return float(alive.max() / np.median(alive)) if alive.size >= 4 else 1.0


def dead(contents: Contents) -> Iterator[Finding]:
    """VS403: variances that carry no signal."""
    hit = [layer for layer in layers_of(contents) if layer.finite and _dead(layer)]
    if hit:
        count = sum(_dead(layer) for layer in hit)
        denormal = sum(
            int(((layer.var > 0.0) & (layer.var < _SMALLEST_NORMAL)).sum()) for layer in hit
        )
        of = sum(layer.var.size for layer in hit)
        yield Finding(
            "VS403",
            FindingLevel.NOTE,
            names_of(hit),
            f"{count} of {of} channels of {counted(hit)} are dead: variance below {DEAD:g}"
            + (f", {denormal} of them denormal numbers" if denormal else ""),
            {"dead": {layer.shown: _dead(layer) for layer in hit}, "denormal": denormal},
        )


def _dead(layer: Layer) -> int:
    return int((layer.var < DEAD).sum())


def near_eps(contents: Contents) -> Iterator[Finding]:
    """VS404: variances so small that the eps they run with decides their scale."""
    hit = [layer for layer in layers_of(contents) if layer.finite and _near(layer) > _SHARE]
    if hit:
        share = float(np.mean([_near(layer) for layer in hit]))
        yield Finding(
            "VS404",
            FindingLevel.NOTE,
            names_of(hit),
            f"in {counted(hit)} {share:.0%} of the channels have a variance below 1e-4: whether "
            "they run with eps 1e-5 or 1e-3 changes their scale more than threefold",
            {"share": {layer.shown: _near(layer) for layer in hit}},
            ("nothing, if the network runs with the eps it was trained with",),
        )


def _near(layer: Layer) -> float:
    """Share of the live channels whose variance is below ten times the usual eps."""
    alive = layer.var[layer.var >= DEAD]
    return float((alive < 10 * USUAL_EPS).mean()) if alive.size else 0.0
