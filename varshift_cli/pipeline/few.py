"""Whether there were enough samples to tell how bad it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from varshift_cli.gate import two_digits
from varshift_cli.measurement.samples import MIN_GROUPS, group_count
from varshift_cli.records import Interval, LayerRecord, Level
from varshift_cli.statistics import t975

_SPANNED = 3
"""Levels that an interval spans from which it tells too little; two are met at any bound."""
_STEP = 1.05
_LEAST, _MOST = 4, 10**6
"""Times the samples that there were, and samples, between which advice is given."""
_LARGE = 100.0
"""A shift from which its size tells nothing any more."""


def few_samples(layers: Sequence[LayerRecord], samples: int, groups: int) -> str | None:
    """A remark where the worst shift may be anything from *fine* to *strong*, or farther.

    Args:
        layers: As measured.
        samples: How many were measured.
        groups: In how many groups.

    Returns:
        ``None`` where the intervals leave two levels at most, or none are known.
    """
    known = [each for each in layers if each.shift is not None and each.shift_interval is not None]
    if not known:
        return None
    worst = _worst(known)
    levels = _between(worst)
    if len(levels) < _SPANNED:
        return None
    high = f"{worst.high:.2f}" if worst.high < _LARGE else f"over {_LARGE:g}"
    number = _needed(known, samples, groups)
    enough = "a few hundred would do" if number is None else f"about {number:,} would tell"
    return (
        f"{samples:,} samples are few here: the worst shift may lie anywhere from {worst.low:.2f} "
        f"to {high}, {levels[0].value} to {levels[-1].value}; {enough}"
    )


def _worst(layers: Sequence[LayerRecord], scale: float = 1.0) -> Interval:
    """Where the largest shift lies, if all half-widths were ``scale`` of what they are."""
    ends = [_ends(layer, scale) for layer in layers]
    return Interval(max(low for low, _ in ends), max(high for _, high in ends))


def _ends(layer: LayerRecord, scale: float) -> tuple[float, float]:
    assert layer.shift is not None
    assert layer.shift_interval is not None
    above = layer.shift_interval.high / layer.shift
    below = layer.shift / layer.shift_interval.low
    if layer.shift_interval.low <= 1.0:
        below = max(below, above)  # it was cut off at 1
    return max(1.0, layer.shift / below**scale), layer.shift * above**scale


def _between(interval: Interval) -> list[Level]:
    """The levels that it touches, mildest first."""
    levels = list(Level)
    first, last = Level.of(interval.low), Level.of(interval.high)
    return levels[levels.index(first) : levels.index(last) + 1]


def _needed(layers: Sequence[LayerRecord], samples: int, groups: int) -> int | None:
    """About how many samples would leave two levels; ``None`` if so few do not even tell that.

    A half-width goes with t(.975, G-1)/sqrt(n), for G groups of n samples.
    """
    if groups < MIN_GROUPS or groups != group_count(samples):
        return None  # or the samples are not the units, as graphs in a batch are not
    number = float(_LEAST * samples)
    while number < _MOST:
        students = t975(group_count(int(number)) - 1) / t975(groups - 1)
        left = _worst(layers, students * math.sqrt(samples / number))
        if len(_between(left)) < _SPANNED:
            return two_digits(number)
        number *= _STEP
    return None
