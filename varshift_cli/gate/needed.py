"""How many samples would decide, and whether what was drawn so far does.

An interval's half-width in ln(shift) goes with 1/sqrt(n). With w the half-width at n samples and
d = |ln shift - ln threshold|, the interval at n' samples leaves the threshold on one side with
probability Phi(1.96 d/w sqrt(n'/n) - 1.96), if d is the true distance; 4 times in 5 for

    n' = n (1.43 w/d)^2,     1.43 = (1.96 + 0.84)/1.96.

Looking again and again at a growing sample errs more often than looking once. While more can be
drawn, only intervals widened by ``WIDER`` count (the constant of Pocock, Biometrika 1977, for
five looks at 5 % in all: 2.41/1.96).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from varshift_cli.records import (
    Interval,
    LayerRecord,
    LayerVerdict,
    Outcome,
    Report,
    Status,
    Verdict,
)

POWER = (1.96 + 0.84) / 1.96
WIDER = 2.41 / 1.96

MOST = 10**9
"""No more samples than this are ever promised to decide."""


def samples_needed(layer: LayerRecord, threshold: float, samples: int) -> int | None:
    """About how many samples would decide whether a layer is beyond a threshold, 4 times in 5.

    Args:
        layer: An undecided layer.
        threshold: The largest ``shift`` allowed.
        samples: How many were measured.

    Returns:
        A number above ``samples``, to two digits; ``None`` where none can be told: the shift or
        its interval is unknown, or it is so near the threshold that no sample would do.
    """
    ends = _half_widths(layer)
    if layer.shift is None or ends is None or samples < 1:
        return None
    distance = abs(math.log(layer.shift) - math.log(threshold))
    # The lower end may have been cut off at 1, and then tells too little.
    width = max(ends) if layer.shift > threshold else ends[1]
    if distance <= width * POWER * math.sqrt(samples / MOST):
        return None
    return max(two_digits(samples * (POWER * width / distance) ** 2), samples + 1)


def is_settled(report: Report, judge: Callable[[Report], Verdict]) -> bool:
    """Whether a verdict would be the same with every interval wider, and is no *inconclusive*.

    Args:
        report: What was measured so far.
        judge: The gate.
    """
    status = judge(report).status
    if status is Status.INCONCLUSIVE:
        return False
    wider = replace(report, layers=tuple(_widened(layer) for layer in report.layers))
    return judge(wider).status is status


def _half_widths(layer: LayerRecord) -> tuple[float, float] | None:
    """How far the interval reaches below and above the shift, in ln."""
    interval = layer.shift_interval
    if layer.shift is None or interval is None or not 1 <= layer.shift <= interval.high:
        return None  # unknown, or edited by hand
    return math.log(layer.shift / max(interval.low, 1.0)), math.log(interval.high / layer.shift)


def _widened(layer: LayerRecord) -> LayerRecord:
    ends = _half_widths(layer)
    if layer.shift is None or ends is None:
        return layer
    below, above = (math.exp(WIDER * each) for each in ends)
    wider = Interval(max(1.0, layer.shift / below), layer.shift * above)
    return replace(layer, shift_interval=wider)


def two_digits(number: float) -> int:
    """The number rounded up to two digits."""
    unit = int(10 ** max(math.floor(math.log10(number)) - 1, 0))
    return math.ceil(number / unit) * unit


def needed_by_all(report: Report, told: Sequence[LayerVerdict]) -> int | None:
    """Samples that decide every undecided layer; ``None`` if that cannot be told of one."""
    numbers = [
        samples_needed(layer, each.threshold, report.calibration.samples)
        for layer, each in zip(report.layers, told, strict=True)
        if each.outcome is Outcome.INCONCLUSIVE and each.threshold is not None
    ]
    known = [number for number in numbers if number is not None]
    return max(known) if known and len(known) == len(numbers) else None
