"""VS501 to VS503: it is the data, or not BatchNorm (BN) at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from varshift_cli.diagnosis.evidence import Evidence
from varshift_cli.diagnosis.observations import Observations, Question, counted, finding
from varshift_cli.records import Finding, FindingLevel, Level

_FADES = 0.5
"""What the layers behind keep of the distance at the input, if the input is the cause: each layer
normalised by what it really gets hands on nearly what it handed on in training."""
_STILL = 0.05
"""Drift of the means, in standard deviations, up to which they agree."""
_EVEN = 0.4
"""Spread over channels of ln T/R, relative to its mean, up to which all moved alike."""
_LESS = 0.5
"""What is left of the distance on the training data, if it is the data."""
_GOOD = 0.95
"""Accuracy from which nothing needs an explanation."""
_MIXUP = math.log(1.6)
"""Mixup with uniform weights takes away at most a third of the variance."""


def unlike_training(asked: Question) -> Finding | None:
    """VS501 and VS502, decided: layers whose buffers fit the training data and not these."""
    there = {each.name: each for here in asked.off if (each := asked.on_training_data(here))}
    off: list[Evidence] = []
    for each in asked.off:
        fits = each.name in there and not there[each.name].is_off
        # Behind a layer that gets other data, whatever fits the training data is off by them too.
        behind = {first.name for first in off} & set(each.record.upstream)
        if (behind and fits) or _is_the_data(each, there.get(each.name)):
            off.append(each)
    if not off:
        return None
    numbers = {
        "stale_on_train_data": {each.name: math.exp(there[each.name].signed) for each in off},
        "train_samples": there[off[0].name].units,
    }
    first = [each for each in off if each.is_input]
    if first and _is_augmentation(first):
        return _augmented(asked, first, off, numbers)
    return finding(
        "VS501",
        off,
        f"these are not the data of training: the statistics of {counted(off)}, {off[0].name} "
        "first, do not fit them, and fit the training data",
        numbers,
    )


def _is_the_data(here: Evidence, there: Evidence | None) -> bool:
    """Whether most of the distance goes on the training data, and not by chance."""
    return there is not None and there.size < _LESS * here.size and here.differs_from(there)


def other_inputs(asked: Question) -> Finding | None:
    """VS501 and VS502: layers at the input are off, those behind much less.

    Where the training data were measured too, this decides nothing that they have not.
    """
    if asked.seen.train_data is not None:
        return None
    first = [each for each in asked.every if each.is_input and each in asked.left]
    rest = [each for each in asked.every if not each.is_input]
    off = [each for each in first if each.is_off]
    if not off:
        return None
    at_input = _average(off)
    behind = _average(rest)
    if rest and behind > _FADES * at_input:
        return None
    numbers = {
        "distance_at_input": at_input,
        "distance_behind": behind if rest else None,
        "mean_drift_at_input": max(each.drift_size for each in off),
    }
    if _is_augmentation(off):
        return _augmented(asked, off, asked.off, numbers)
    return finding(
        "VS501",
        asked.off,
        f"what reaches the first BatchNorm ({off[0].name}) is not what it was trained on, in "
        f"{_in_what(off)}; layers behind are off by less",
        numbers,
        (
            "augmentation in training only",
            "the first layer's weights changed since: --train-data decides",
            *asked.unmixed_batches,
        ),
    )


def _in_what(off: Sequence[Evidence]) -> str:
    """``mean``, ``variance``, or both: what is off beyond noise."""
    known = {what for each in off for what in each.off_in}
    found = ["mean"] if "mean" in known else []
    return " and ".join([*found, "variance"] if known - {"mean"} else found)


def _average(layers: Sequence[Evidence]) -> float:
    sizes = [each.size for each in layers]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _is_augmentation(first: Sequence[Evidence]) -> bool:
    """Whether layers at the input moved by one factor in all channels, their means staying."""
    signed = _signed(first)
    return (
        max(each.drift_size for each in first) < _STILL
        and max(each.spread for each in first) < _EVEN * abs(signed)
        and signed < _MIXUP
    )


def _signed(layers: Sequence[Evidence]) -> float:
    return sum(each.signed for each in layers) / len(layers)


def _augmented(
    asked: Question,
    first: Sequence[Evidence],
    layers: Sequence[Evidence],
    numbers: Mapping[str, object],
) -> Finding:
    """VS502 on ``layers``, of which ``first`` stand at the input."""
    signed = _signed(first)
    kind = "mixed (mixup, cutmix)" if signed > 0 else "made noisier"
    decides = ": --train-data, augmentation on, decides" if asked.other_data else ""
    return finding(
        "VS502",
        layers,
        f"the first BatchNorm ({first[0].name}) gets {math.exp(signed):.2f} of the variance it was "
        f"trained on in all channels alike, with the same means: inputs were {kind} in training",
        numbers,
        (
            f"inputs on another scale about the same mean{decides}",
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
