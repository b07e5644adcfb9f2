"""VS301, VS302: training batches that do not stand for the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from varshift_cli.diagnosis.evidence import REAL, Evidence
from varshift_cli.diagnosis.observations import Question, counted, finding
from varshift_cli.measurement.unmixed import Unmixed
from varshift_cli.records import Finding

_EXPLAINED = 0.5
_FITS = 0.6
"""The same for a training that is imitated, in variances and means together."""
_STEPS = 20
"""Weights that are tried."""
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
            *asked.other_probability,
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
    """VS302: R is what training on unmixed batches gathers, one kind of sample after the other.

    A running average over K kinds in order weighs kind k by q^(K-k), with q = (1 - momentum)^n for
    n batches of each; n is not known, and q is fitted. Where no order fits, the variances may
    still be those within kinds: batches of one kind each, in no order.
    """
    trials = asked.seen.trials
    if trials is None or not asked.off:
        return None
    unmixed = trials.unmixed()
    if unmixed is None:
        return None
    layers = [each for each in asked.left if each.layer.key in unmixed.mean]
    if not layers:
        return None
    fit = min((_fit(layers, unmixed, step / _STEPS) for step in range(_STEPS + 1)), key=_total)
    explained = 1.0 - _total(fit) / sum(each.size for each in layers)
    means = 1.0 - fit.means / max(sum(each.drift_size for each in layers), 1e-12)
    in_order = explained > _FITS and means > _EXPLAINED
    if not in_order and not _within_kinds(layers, unmixed):
        return None
    return finding(
        "VS302",
        asked.off,
        _message(asked, in_order=in_order, by_class=unmixed.by_class),
        {
            "explained": explained,
            "means_explained": means,
            "in_order": in_order,
            "kinds": "classes" if unmixed.by_class else "batches as they came",
            "weight_of_the_kind_before": fit.share,
        },
        _rivals(asked, in_order=in_order, by_class=unmixed.by_class),
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """Distances that are left, summed over layers, at one q."""

    share: float
    variances: float
    means: float


def _total(fit: _Fit) -> float:
    return fit.variances + fit.means


def _fit(layers: Sequence[Evidence], unmixed: Unmixed, share: float) -> _Fit:
    variances = means = 0.0
    for each in layers:
        mean, var = unmixed.mean[each.layer.key], unmixed.var[each.layer.key]
        weights = share ** torch.arange(len(var) - 1, -1, -1, dtype=var.dtype)
        weights = weights / weights.sum()
        expected = (weights @ var)[each.live]
        within = each.distance_to(None, expected)
        variances += within
        means += each.distance_to((weights @ mean)[each.live], expected) - within
    return _Fit(share, variances, means)


def _within_kinds(layers: Sequence[Evidence], unmixed: Unmixed) -> bool:
    """Whether R at the input is the variance within kinds, rather than T by one factor."""
    first = [each for each in layers if each.is_input] or layers[:1]
    return max(each.drift_size for each in first) > _STILL / 2.0 and all(
        _left_within(each, unmixed) < min((1.0 - _FITS) * each.distance, _unevenness(each))
        for each in first
    )


def _left_within(each: Evidence, unmixed: Unmixed) -> float:
    """Distance that is left when R is compared with the mean variance within kinds."""
    return each.distance_to(None, unmixed.var[each.layer.key].mean(dim=0)[each.live])


def _unevenness(each: Evidence) -> float:
    """Distance that is left when T is multiplied by the best single factor."""
    return float((each.log - each.log.median()).abs().mean())


def _message(asked: Question, *, in_order: bool, by_class: bool) -> str:
    kind = "of one class each" if by_class else "in the order of --data"
    after = ", class after class" if in_order and by_class else ""
    return (
        f"the statistics of {counted(asked.off)} are those of training batches {kind}{after}: "
        "they lack what lies between the batches"
        + (", and lean to the last of them" if in_order else "")
    )


def _rivals(asked: Question, *, in_order: bool, by_class: bool) -> tuple[str, ...]:
    rivals = [
        "batches sorted by something that goes with the class; their loader tells"
        if by_class
        else "only the order of --data is known; the loader of training tells if it had the same"
    ]
    if not in_order:
        rivals.append("mixup, which takes away variance too, but leaves the means")
    if all(_batch_factor(each) is None for each in asked.left):
        rivals.append("small training batches: --train-batch-size decides")
    return tuple(rivals)
