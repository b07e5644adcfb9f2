"""Rules on a layer's own scale and offset."""

from __future__ import annotations

from collections.abc import Iterator

from varshift_cli.records import Finding, FindingLevel
from varshift_cli.static.nets import Contents
from varshift_cli.static.values import counted, layers_of, names_of


def half_frozen(contents: Contents) -> Iterator[Finding]:
    """VS211: statistics that moved, scale and offset that never did."""
    hit = [
        layer
        for layer in layers_of(contents)
        if layer.weight is not None
        and layer.bias is not None
        and bool((layer.weight == 1.0).all())
        and bool((layer.bias == 0.0).all())
        and not layer.initial
    ]
    if hit:
        yield Finding(
            "VS211",
            FindingLevel.NOTE,
            names_of(hit),
            f"scale and offset of {counted(hit)} are exactly 1 and 0, while their running "
            "statistics have moved: not trained, or frozen by one half",
            {"layers": len(hit)},
            ("a network that was never trained, only run in train mode",),
        )


def silent(contents: Contents) -> Iterator[Finding]:
    """VS406: layers that multiply by 0."""
    hit = [
        layer
        for layer in layers_of(contents)
        if layer.weight is not None and bool((layer.weight == 0.0).all())
    ]
    if hit:
        yield Finding(
            "VS406",
            FindingLevel.NOTE,
            names_of(hit),
            f"{counted(hit)} multiply by 0 in every channel: what enters them has no effect",
            {"layers": len(hit)},
            ("a residual branch that starts at 0, in a network not trained yet",),
        )
