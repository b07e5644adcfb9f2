"""What single dropouts do to single layers: alone, by formula, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from varshift_cli.records import LayerRecord, Report
from varshift_cli.report.judged import judged_layers
from varshift_cli.report.text import visible


@dataclass(frozen=True, slots=True)
class Single:
    """One dropout and one layer."""

    layer: str
    """The layer's label, made visible."""
    dropout: str
    reach: str
    """``straight``, ``through weights``, or ``further up`` behind another BatchNorm."""
    alone: float | None
    """C/T with this dropout alone on."""
    predicted: float | None
    """The same by formula, from the clean pass."""
    remark: str
    """How sure ``alone`` is, and whether the formula holds; or why there is none."""


def single_dropouts(report: Report) -> list[Single]:
    """Every pair that was measured or predicted: layers in execution order, largest share first."""
    return [
        single
        for judged in judged_layers(report)
        for single in _of_layer(judged.layer, judged.label)
    ]


def _of_layer(layer: LayerRecord, label: str) -> Iterator[Single]:
    shares = {each.name: each for each in layer.attribution or ()}
    formulas = {each.name: each for each in layer.prediction or ()}
    straight = {each.name: each.case for each in layer.dropouts}
    for name in dict.fromkeys((*shares, *formulas)):
        share, formula = shares.get(name), formulas.get(name)
        alone = None if share is None else math.exp(min(share.share, _MOST))
        predicted = None if formula is None else formula.predicted
        if alone is None and formula is not None:
            alone = formula.measured
        remarks = []
        if share is not None and share.error is not None:
            remarks.append(f"standard error {100 * share.error:.1f} %")
        if formula is not None and formula.agrees is not None:
            remarks.append("as predicted" if formula.agrees else "not as predicted")
        if formula is not None and formula.reason:
            remarks.append(visible(formula.reason))
        case = straight.get(name)
        reach = "further up" if case is None else _REACH[case.value]
        yield Single(label, visible(name), reach, alone, predicted, ", ".join(remarks))


_MOST = 700.0  # exp of more is no number
_REACH = {"a": "straight", "b": "through weights"}
