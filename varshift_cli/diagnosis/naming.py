"""Which factor explains a layer's shift."""

from __future__ import annotations

import math

from varshift_cli.records import Factors, Level

CANCELLING = " x "
"""Joins two factors that work against each other."""


def name_cause(factors: Factors, level: Level | None) -> str | None:
    """The factor with the largest |ln|; both of two that cancel; ``None`` for a fine layer.

    Two factors cancel when |sum of ln| is below half the larger |ln|.
    """
    if level is None or level is Level.FINE:
        return None
    logs = {
        name: math.log(value)
        for name in ("stale", "batch", "dropout", "inherited")
        if (value := getattr(factors, name)) is not None
    }
    first, second = sorted(logs, key=lambda name: -abs(logs[name]))[:2]
    opposed = logs[first] * logs[second] < 0.0
    if opposed and abs(sum(logs.values())) < abs(logs[first]) / 2.0:
        return f"{first}{CANCELLING}{second}"
    return first
