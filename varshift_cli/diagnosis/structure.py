"""VS401 to VS405, VS212: layers whose stored values belong to another call, channel or eps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from varshift_cli.diagnosis.evidence import Evidence
from varshift_cli.diagnosis.observations import Observations, Question, counted, finding
from varshift_cli.instrument import BatchNormKey
from varshift_cli.records import Finding, FindingLevel
from varshift_cli.statistics import GroupMoments

_FAR = 0.2
"""Distance from which another order of channels is worth trying."""
_BETTER = 0.4
"""What is left of the distance when the right explanation is tried."""
_DEALS = 32
"""How often differences are dealt to other channels, to see what sorting leaves of them."""
_LEAST_CHANNELS = 6
_OUTLIER = 8.0
"""R/T of a channel that a single batch has pulled away."""
_NEAR_EPS = 10.0
_EPS = (1e-3, 1e-5, 1e-6, 1e-4)
"""Defaults of Keras, PyTorch, transformers, and one between."""


def shared(asked: Question) -> Finding | None:
    """VS401: one layer for several calls whose inputs differ."""
    calls: dict[str, list[Evidence]] = {}
    for each in asked.left:
        calls.setdefault(each.layer.key.name, []).append(each)
    hit = [each for group in calls.values() if len(group) > 1 for each in group]
    off = [each for each in hit if each.is_off]
    if not off:
        return None
    named = sorted({each.layer.key.name for each in hit})
    most = max(len(group) for group in calls.values())
    return finding(
        "VS401",
        hit,
        f"{counted(named)} called up to {most} times in every forward, for inputs that differ: "
        "one pair of statistics cannot fit all",
        {
            "calls": {each.name: math.exp(each.signed) for each in hit},
            "mean_drifts": {each.name: each.drift_size for each in hit},
        },
        ("stale buffers beside it: R near the average of the calls speaks against it",),
    )


def permuted(asked: Question) -> Finding | None:
    """VS405: right values, wrong channels; or mean and variance in each other's place."""
    shuffled = [each for each in asked.off if _is_permuted(each)]
    swapped = [each for each in asked.off if each not in shuffled and _is_swapped(each)]
    hit = shuffled + swapped
    if not hit:
        return None
    parts = [f"{counted(shuffled)} in another order of channels"] if shuffled else []
    parts += [f"{counted(swapped)} with mean and variance in each other's place"] if swapped else []
    return finding(
        "VS405",
        hit,
        f"the statistics fit, but not where they stand: {', '.join(parts)}",
        {
            "distance_by_channel": {each.name: each.size for each in hit},
            "distance_sorted": {
                each.name: _distance_sorted(each, each.log, each.drift) for each in shuffled
            },
        },
    )


def _is_permuted(each: Evidence) -> bool:
    """Whether sorting explains more of the distance than it would of differences by chance.

    An order moves single channels and leaves the size of all of them together, and sorting brings
    any two sets of values nearer: so what is left is held against what sorting leaves where the
    same differences stand at other channels.
    """
    if each.log.numel() < _LEAST_CHANNELS or each.size < _FAR or each.off_in <= {"size"}:
        return False
    if abs(each.signed) >= 0.5 * each.distance:
        return False
    generator = torch.Generator().manual_seed(0)
    dealt = 0.0
    for _ in range(_DEALS):
        order = torch.randperm(each.log.numel(), generator=generator)
        dealt += _distance_sorted(each, each.log[order], each.drift[order]) / _DEALS
    return _distance_sorted(each, each.log, each.drift) < _BETTER * dealt


def _distance_sorted(each: Evidence, log: Tensor, drift: Tensor) -> float:
    """Distance between T and T less these differences, with the channels of both sorted by size."""
    train = torch.log(each.train_var + each.eps)
    deviation = (each.train_var + each.eps).sqrt()
    logs = _sorted_apart(train, train - log)
    means = _sorted_apart(each.train_mean, each.train_mean - drift * deviation)
    return logs + means / float(deviation.mean())


def _sorted_apart(a: Tensor, b: Tensor) -> float:
    return float((a.sort().values - b.sort().values).abs().mean())


def _is_swapped(each: Evidence) -> bool:
    if each.size < _FAR or each.log.numel() < _LEAST_CHANNELS:
        return False
    variance = _logs(each.running_mean.abs(), each.train_var, each.eps)
    mean = _logs(each.running_var, each.train_mean.abs(), each.eps)
    return float(variance.median()) < 0.15 and float(mean.median()) < 0.3


def _logs(a: Tensor, b: Tensor, eps: float) -> Tensor:
    return torch.log((a + eps) / (b + eps)).abs()


def outliers(asked: Question) -> Finding | None:
    """VS212: a few channels far above T, the others agree."""
    hit = {each.name: found for each in asked.off if (found := _outliers(each))}
    layers = [each for each in asked.off if each.name in hit]
    if not layers:
        return None
    return finding(
        "VS212",
        layers,
        f"in {counted(layers)} a few channels' variance is over {_OUTLIER:g} times what the data "
        "show, while the others agree: a single batch gone wrong does that",
        {"channels": hit},
        ("data that lack what these channels saw in training: scan the training data",),
    )


def _outliers(each: Evidence) -> list[int]:
    far = -each.log > math.log(_OUTLIER)
    count = int(far.sum())
    if not 0 < count <= max(1, each.log.numel() // 10) or each.log.numel() < _LEAST_CHANNELS:
        return []
    rest = each.log[~far].abs()
    if float(rest.mean()) > _FAR / 2.0:
        return []
    channels: list[int] = each.live.nonzero().flatten()[far].tolist()
    return channels


def other_eps(asked: Question) -> Finding | None:
    """VS404: with another eps the layers behind small variances would agree."""
    trials = asked.seen.trials
    off = [each for each in asked.off if not each.is_input]
    inputs = [each for each in asked.every if each.is_input]
    if trials is None or not off or any(each.is_off for each in inputs):
        return None
    smallest = min(float(each.running_var.min()) for each in asked.every if each.log.numel())
    current = off[0].eps
    tried: dict[float, float] = {}
    for eps in _EPS:
        if eps != current and smallest < _NEAR_EPS * max(eps, current):
            tried[eps] = _distance_with(asked.every, trials.with_eps(eps))
    now = sum(each.distance for each in asked.every)
    best = min(tried, key=lambda eps: tried[eps], default=None)
    if best is None or tried[best] > _BETTER * now:
        return None
    return finding(
        "VS404",
        off,
        f"with eps {best:g} in place of {current:g} the statistics of {counted(off)} would fit: "
        "trained with another eps",
        {
            "eps": current,
            "fits": best,
            "summed_distance": now,
            "summed_distance_with": {f"{eps:g}": value for eps, value in tried.items()},
        },
    )


def _distance_with(
    every: Sequence[Evidence], moments: Mapping[BatchNormKey, GroupMoments]
) -> float:
    total = 0.0
    for each in every:
        other = moments.get(each.layer.key)
        if other is None:
            return math.inf
        var = other.pooled().var[each.live]
        total += each.distance_to(None, var)
    return total


def odd_structure(seen: Observations) -> list[Finding]:
    """Notes: VS402 no statistics, VS403 dead channels."""
    found = []
    if seen.skipped:
        names = tuple(each.name for each in seen.skipped)
        found.append(
            Finding(
                "VS402",
                FindingLevel.NOTE,
                names,
                f"{counted(names)} normalise by the batch in eval() too: what the network says of "
                "one input depends on the others in its batch",
                {"layers": len(names)},
                ("on purpose, as in style transfer or meta-learning",),
            )
        )
    dead = [layer for layer in seen.layers if layer.dead_channels]
    if dead:
        count = sum(layer.dead_channels for layer in dead)
        of = sum(layer.num_features for layer in dead)
        found.append(
            Finding(
                "VS403",
                FindingLevel.NOTE,
                tuple(layer.name for layer in dead),
                f"{count} of {of} channels of {counted(dead)} are dead, and left out of all means",
                {"dead": {layer.name: layer.dead_channels for layer in dead}},
            )
        )
    return found
