"""Where prediction and measurement part: a sign that a dropout is not what it seems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from varshift_cli.records import Finding, FindingLevel, LayerRecord, Prediction

_LEAST = math.log(1.1)
"""|ln predicted/measured| below which a difference is of no interest."""
_STRICT = 8.0
"""Standard errors. Many pairs are compared, and for noise with one draw a sample the error from 16
groups is now and then half of what it should be (4.7 was met in 160 comparisons)."""
_SHOWN = 3


def parted(layers: Sequence[LayerRecord]) -> Iterable[Finding]:
    """VS140 for the layers in which a dropout does not do what its formula says."""
    apart = [
        (layer, each) for layer in layers for each in layer.prediction or () if _has_parted(each)
    ]
    if not apart:
        return
    apart.sort(key=lambda pair: -_distance(pair[1]))
    shown = "; ".join(
        f"{layer.name} {each.predicted:.2f} expected of {each.name}, {each.measured:.2f} measured"
        for layer, each in apart[:_SHOWN]
    )
    more = f"; and {len(apart) - _SHOWN} more" if len(apart) > _SHOWN else ""
    yield Finding(
        "VS140",
        FindingLevel.NOTE,
        tuple(dict.fromkeys(layer.name for layer, _ in apart)),
        f"dropout does not do what its formula says: factor {shown}{more}",
        {
            "predictions": [
                {
                    "layer": layer.name,
                    "dropout": each.name,
                    "predicted": each.predicted,
                    "measured": each.measured,
                    "error": each.error,
                }
                for layer, each in apart
            ]
        },
        ("a noise whose law or p is not what its class says", "a path that changes in training"),
    )


def _has_parted(each: Prediction) -> bool:
    if each.agrees is not False or each.error is None:
        return False
    return _distance(each) > max(_LEAST, _STRICT * each.error)


def _distance(each: Prediction) -> float:
    if not each.predicted or not each.measured:
        return 0.0
    return abs(math.log(each.predicted / each.measured))
