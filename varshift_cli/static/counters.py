"""Rules on ``num_batches_tracked``: how often each layer's buffers were updated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from varshift_cli.records import Finding, FindingLevel
from varshift_cli.static.nets import Contents, Layer, Net
from varshift_cli.static.values import counted, layers_of, names_of

MOMENTUM = 0.1
"""PyTorch's default."""
ENOUGH = 44
"""Updates after which 1 % of the initial values is left at momentum 0.1."""
_MANY = 22
"""After which 10 % is left."""
_MOST_CALLS = 16


def initial_share(updates: int) -> float:
    """What is left of the initial values after k updates: (1 - momentum)^k."""
    return (1.0 - MOMENTUM) ** updates


def too_few(contents: Contents) -> Iterator[Finding]:
    """VS204: so few updates that the initial values are still felt."""
    young = [
        layer
        for layer in layers_of(contents)
        if layer.updates is not None
        and 0 < layer.updates < ENOUGH
        and layer.finite
        and not layer.initial
    ]
    # Each channel keeps at least that share of its initial variance 1, if the momentum was 0.1.
    fits = [layer for layer in young if layer.var.min() >= 0.99 * initial_share(layer.updates or 0)]
    other = [layer for layer in young if layer not in fits]
    if fits:
        fewest = min(layer.updates or 0 for layer in fits)
        yield Finding(
            "VS204",
            FindingLevel.WARNING if fewest < _MANY else FindingLevel.NOTE,
            names_of(fits),
            f"running statistics of {counted(fits)} were updated {fewest} times: at momentum 0.1 "
            f"{initial_share(fewest):.0%} of the initial mean 0 and variance 1 is still in them",
            {"updates": fewest, "initial_share": initial_share(fewest)},
            ("a larger momentum, or momentum=None, which averages all batches alike",),
        )
    if other:
        fewest = min(layer.updates or 0 for layer in other)
        least = min(float(layer.var.min()) for layer in other)
        yield Finding(
            "VS204",
            FindingLevel.NOTE,
            names_of(other),
            f"running statistics of {counted(other)} were updated {fewest} times, with a momentum "
            f"above 0.1 or none: a variance of {least:.2g} is below what 0.1 would leave of 1",
            {"updates": fewest, "smallest_variance": least},
            ("repaired since, by varshift or update_bn",),
        )


def no_count(contents: Contents) -> Iterator[Finding]:
    """VS206: never counted, yet moved; in nets where no layer was counted."""
    for net in contents.nets:
        odd = [each for each in net.layers.values() if each.updates == 0 and not each.initial]
        if odd and not any(layer.updates for layer in net.layers.values()):
            yield Finding(
                "VS206",
                FindingLevel.NOTE,
                names_of(odd),
                f"num_batches_tracked is 0 in {counted(odd)} whose running statistics have moved",
                {"updates": 0},
                ("converted from another framework", "written by a tool that leaves counters"),
            )


def standing_still(contents: Contents) -> Iterator[Finding]:
    """VS209: layers that were updated less often than the others of their net."""
    for net in contents.nets:
        usual = _usual(net)
        still = [
            layer
            for layer in net.layers.values()
            if layer.updates is not None
            and usual is not None
            and layer.updates < usual
            and not layer.initial
        ]
        if usual is not None and still:
            fewest = min(layer.updates or 0 for layer in still)
            yield Finding(
                "VS209",
                FindingLevel.NOTE,
                names_of(still),
                f"{counted(still)} were updated {fewest:,} times or a little more, the others "
                f"{usual:,} times: frozen while the rest was trained",
                {"updates": {layer.shown: layer.updates for layer in still}, "others": usual},
                (
                    "a branch that only some batches take",
                    "statistics reset during training",
                ),
            )


def multiples(contents: Contents) -> Iterator[Finding]:
    """VS401: layers whose counter is a whole multiple of the others'."""
    for net in contents.nets:
        usual = _usual(net)
        if not usual:
            continue
        shared = {
            layer.shown: layer.updates // usual
            for layer in net.layers.values()
            if layer.updates is not None
            and layer.updates > usual
            and layer.updates % usual == 0
            and layer.updates // usual <= _MOST_CALLS
        }
        if shared:
            times = ", ".join(str(n) for n in sorted(set(shared.values())))
            yield Finding(
                "VS401",
                FindingLevel.NOTE,
                tuple(shared),
                f"{counted(list(shared))} counted {times} times as many batches as the others: "
                "called that often in every forward",
                {"calls": shared, "others": usual},
                ("activation checkpointing, which runs some forwards twice",),
            )


def _usual(net: Net) -> int | None:
    """The counter that most layers of a net share; the larger on a tie for the smaller share."""
    counts = Counter(layer.updates for layer in net.layers.values() if layer.updates is not None)
    if len(counts) < 2:
        return None
    most = max(counts.values())
    tied = [value for value, number in counts.items() if number == most]
    if len(tied) == 1:
        return tied[0]
    return _of_tied(tied)


def _of_tied(values: list[int]) -> int:
    """Of equally common counters the smallest, if all are multiples of it; else the largest."""
    least = min(values)
    whole = least > 0 and all(value % least == 0 for value in values)
    return least if whole else max(values)


def gathered_alike(layer: Layer, other: Layer) -> bool:
    """Whether two layers hold the same statistics to the last bit."""
    return np.array_equal(layer.mean, other.mean) and np.array_equal(layer.var, other.var)
