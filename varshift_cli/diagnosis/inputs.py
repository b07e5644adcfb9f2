"""VS501 to VS503: it is the data, or not BatchNorm (BN) at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from varshift_cli.diagnosis.evidence import REAL, Evidence
from varshift_cli.diagnosis.observations import Observations, Question, counted, finding
from varshift_cli.records import Finding, FindingLevel, Level

_FADES = 0.5
"""What the layers behind keep of the distance at the input, if the input is the cause: each layer
normalised by what it really gets hands on nearly what it handed on in training."""
_STILL = 0.05
"""Drift of the means, in standard deviations, up to which they agree."""
_EVEN = 0.4
"""Spread over channels of ln T/R, relative to its mean, up to which all moved alike."""
_GOOD = 0.95
"""Accuracy from which nothing needs an explanation."""
_MIXUP = math.log(1.6)
"""Mixup with uniform weights takes away at most a third of the variance."""


def other_inputs(asked: Question) -> Finding | None:
    """VS501 and VS502: layers at the input are off, those behind much less."""
    first = [each for each in asked.every if each.is_input and each in asked.left]
    rest = [each for each in asked.every if not each.is_input]
    off = [each for each in first if each.is_off]
    if not off:
        return None
    at_input = _average(off)
    behind = _average(rest)
    if rest and behind > _FADES * at_input:
        return None
    drift = max(each.drift_size for each in off)
    signed = sum(each.signed for each in off) / len(off)
    spread = max(each.spread for each in off)
    numbers = {
        "distance_at_input": at_input,
        "distance_behind": behind if rest else None,
        "mean_drift_at_input": drift,
    }
    if asked.seen.train_data is not None:
        fit = [asked.seen.train_data.get(each.name) for each in off]
        if any(value is None or abs(math.log(value)) > REAL for value in fit):
            return None  # not even training's own data fit: the buffers are wrong
        return _other_data(asked, off, {**numbers, "stale_on_train_data": fit}, decided=True)
    if drift < _STILL and spread < _EVEN * abs(signed) and signed < _MIXUP:
        return _augmented(asked, off, signed, numbers)
    return _other_data(asked, off, numbers, decided=False)


def _average(layers: Sequence[Evidence]) -> float:
    sizes = [each.distance + each.drift_size for each in layers]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _other_data(
    asked: Question, off: Sequence[Evidence], numbers: Mapping[str, object], *, decided: bool
) -> Finding:
    told = "; on the training data they fit" if decided else ""
    rivals = (
        "augmentation in training only",
        "the first layer's weights changed since: --train-data decides",
    )
    return finding(
        "VS501",
        asked.off,
        f"what reaches the first BatchNorm ({off[0].name}) is not what it was trained on, in mean "
        f"and variance; layers behind are off by less{told}",
        numbers,
        () if decided else rivals,
    )


def _augmented(
    asked: Question, off: Sequence[Evidence], signed: float, numbers: Mapping[str, object]
) -> Finding:
    kind = "mixed (mixup, cutmix)" if signed > 0 else "made noisier"
    return finding(
        "VS502",
        asked.off,
        f"the first BatchNorm ({off[0].name}) gets {math.exp(signed):.2f} of the variance it was "
        f"trained on in all channels alike, with the same means: inputs were {kind} in training",
        numbers,
        (
            "inputs on another scale about the same mean: --train-data, augmentation on, decides",
            "small training batches" if signed > 0 else "dropout of inputs outside the model",
        ),
    )


def not_guilty(seen: Observations) -> list[Finding]:
    """VS503: every layer holds, and yet the network makes mistakes on these data."""
    measured = [layer for layer in seen.layers if layer.shift is not None]
    scores = seen.effect.accuracy if seen.effect is not None else None
    if not measured or any(layer.level is not Level.FINE for layer in measured):
        return []
    if scores is None or scores.eval is None or scores.eval >= _GOOD:
        return []
    return [
        Finding(
            "VS503",
            FindingLevel.NOTE,
            (),
            f"accuracy is {scores.eval:.1%} in eval(), and BatchNorm is not the reason: "
            f"{counted(measured)} measured, and all hold",
            {
                "worst_shift": max(layer.shift or 1.0 for layer in measured),
                "accuracy_eval": scores.eval,
                "accuracy_train": scores.train,
            },
        )
    ]
