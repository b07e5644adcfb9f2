"""VS301, VS302: training batches that do not stand for the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from varshift_cli.diagnosis.evidence import REAL, Evidence
from varshift_cli.diagnosis.observations import Question, counted, finding
from varshift_cli.records import Finding
from varshift_cli.statistics import GroupMoments

_EXPLAINED = 0.5
_STILL = 0.15
"""Drift of the means, in standard deviations, up to which they are said to agree."""
_MOST = 64
"""Batch sizes that are tried."""


def small_batches(asked: Question) -> Finding | None:
    """VS301: R short of T by (variance of sample means)/m, with one m for all layers."""
    split = [each for each in asked.left if _batch_factor(each) is not None]
    hit = [each for each in split if abs(math.log(_batch_factor(each) or 1.0)) > REAL]
    if hit:
        return finding(
            "VS301",
            hit,
            f"batches as small as in training lose variance in {counted(hit)}: factor batch "
            f"{max(_batch_factor(each) or 1.0 for each in hit):.2f}",
            {"batch": {each.name: _batch_factor(each) for each in hit}},
        )
    off = [
        each
        for each in asked.off
        if each.is_spatial and each.signed > 0.0 and each.drift_size < _STILL
    ]
    if not off or len(off) < len(asked.off):
        return None
    spatial = [each for each in asked.left if each.is_spatial]
    size = min(range(2, _MOST + 1), key=lambda m: _left(spatial, m))
    explained = 1.0 - _left(spatial, size) / sum(abs(each.signed) for each in spatial)
    if explained < _EXPLAINED or size == _MOST:
        return None
    return finding(
        "VS301",
        off,
        f"the stored variance of {counted(off)} lacks what lies between images, as with training "
        f"batches of about {size}",
        {
            "batch_size": size,
            "explained": explained,
            "like_samples": min(each.like_samples for each in off),
        },
        (
            "augmentation in training only; --train-batch-size decides",
            "data not shuffled in training",
        ),
    )


def _batch_factor(each: Evidence) -> float | None:
    return each.record.factors.batch


def _left(layers: Sequence[Evidence], size: int) -> float:
    """|ln stale| that remains, summed over layers, if training batches had held m samples.

    Means over channels only: after small batches single channels scatter widely.
    """
    total = 0.0
    for each in layers:
        values = size * each.positions
        # E[unbiased variance in a batch] = (T - between/m) n/(n - 1), n values of m samples.
        within = (each.train_var - each.between / size) * (values / (values - 1.0))
        within = within.clamp(min=0.0)
        expected = torch.log((each.train_var + each.eps) / (within + each.eps))
        total += abs(each.signed - float(expected.mean()))
    return total


def unsorted(asked: Question) -> Finding | None:
    """VS302: R is the variance within a class; needs labels."""
    trials = asked.seen.trials
    inputs = [each for each in asked.off if each.signed > 0.0]
    if trials is None or not inputs:
        return None
    by_label = trials.by_label()
    if by_label is None:
        return None
    shares = {
        each.name: _explained(each, by_label[each.layer.key])
        for each in inputs
        if each.layer.key in by_label
    }
    explaining = [
        each
        for each in inputs
        if shares.get(each.name, 0.0) > _EXPLAINED and _beats_any_factor(each, shares[each.name])
    ]
    first = [each for each in inputs if each.is_input] or inputs[:1]
    moved = max(each.drift_size for each in first)
    if not explaining or first[0] not in explaining or moved < _STILL / 2.0:
        return None
    return finding(
        "VS302",
        asked.off,
        f"the stored variance of {counted(explaining)} is that within a class, not over all: "
        "training batches of one class or group each",
        {"explained": shares, "mean_drift_at_input": moved},
        ("mixup, which takes away variance too, but leaves the means",),
    )


def _explained(each: Evidence, classes: GroupMoments) -> float:
    """Share of the distance that goes when R is compared with the variance within classes."""
    within = _within(classes)[each.live]
    return 1.0 - each.distance_to(None, within) / max(each.distance, 1e-12)


def _beats_any_factor(each: Evidence, explained: float) -> bool:
    """Whether the variance within classes fits better than T times the best single factor."""
    even = float((each.log - each.log.median()).abs().mean())
    return (1.0 - explained) * each.distance < even


def _within(classes: GroupMoments) -> Tensor:
    """Mean over classes of the variance inside, shape (C,)."""
    kept = classes.populated()
    inside: Tensor = kept.m2 / (kept.count - 1.0).clamp(min=1.0).unsqueeze(1)
    return torch.mean(inside, dim=0).cpu()
