"""Findings: one cause each, with its layers and its evidence in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from varshift_cli.diagnosis.parting import parted
from varshift_cli.instrument import BatchNormSite
from varshift_cli.records import (
    BuffersRecord,
    Case,
    Describe,
    DropoutRecord,
    Finding,
    FindingLevel,
    Interval,
    LayerRecord,
    Level,
)

REAL = math.log(1.05)
"""|ln factor| from which a factor is worth a finding: above the noise of dropout-free nets (1.04
at the 99th percentile of the paper's 1,235 BN points)."""

_TRAINED_IN_EVAL = (
    "trained in eval mode, where these statistics are right: only labels can tell; compare "
    "accuracy in eval() before any repair"
)
_OTHER_DATA = (
    "other data or preprocessing than in training: scan with the training loader, augmentation "
    "included"
)
_STALE_RIVALS = (
    _OTHER_DATA,
    "weights changed after the last update (EMA, SWA, pruning)",
    "too few updates, or small training batches: scan with more samples",
)


@dataclass(frozen=True, slots=True)
class Observations:
    """What the findings are drawn from."""

    layers: Sequence[LayerRecord]
    dropouts: Sequence[DropoutRecord]
    buffers: BuffersRecord
    sites: Sequence[BatchNormSite]
    missing_buffers: Sequence[str] = ()
    """Names of running buffers that the checkpoint does not hold."""
    always_on: Sequence[str] = ()
    """Names of dropouts that stay on in eval()."""
    samples: int = 0
    owners: dict[str, str] = field(default_factory=dict)
    """Layer name as reported -> name of the BN module."""


def find_causes(seen: Observations) -> tuple[Finding, ...]:
    """All findings: broken buffers first, then causes by strength, then their consequences."""
    broken = [*_non_finite(seen), *_missing(seen), *_never_updated(seen), *_always_on(seen)]
    suspect = {name for finding in broken for name in finding.layers}
    rest = [layer for layer in seen.layers if layer.name not in suspect]
    causes = [*_straight(seen, rest), *_through_weights(seen, rest), *_stale(seen, rest)]
    causes.sort(key=lambda finding: -float(finding.evidence["strength"]))
    return (*broken, *causes, *_inherited(rest), *_repaired(seen), *parted(rest))


def _non_finite(seen: Observations) -> Iterable[Finding]:
    bad = [site for site in seen.sites if not _is_finite(site)]
    if bad:
        yield Finding(
            "VS202",
            FindingLevel.ERROR,
            tuple(site.name for site in bad),
            f"running statistics of {_count(bad)} are not finite, or a variance is negative: "
            "eval() returns NaN or nonsense",
            {site.name: _broken_channels(site) for site in bad},
        )


def _missing(seen: Observations) -> Iterable[Finding]:
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in seen.missing_buffers))
    if owners:
        yield Finding(
            "VS203",
            FindingLevel.ERROR,
            tuple(owners),
            f"the checkpoint holds no running statistics for {_count(owners)}: "
            "they stay at mean 0, variance 1",
            {"missing": list(seen.missing_buffers)},
            ("renamed keys; compare the checkpoint's keys with the model's",),
        )


def _never_updated(seen: Observations) -> Iterable[Finding]:
    missing = {name.rpartition(".")[0] for name in seen.missing_buffers}
    fresh = [site for site in seen.sites if site.name not in missing and _is_initial(site)]
    if fresh:
        yield Finding(
            "VS201",
            FindingLevel.ERROR,
            tuple(site.name for site in fresh),
            f"running statistics of {_count(fresh)} were never updated: mean 0 and variance 1 in "
            "every channel",
            {"num_batches_tracked": 0},
            (_TRAINED_IN_EVAL,),
        )


def _always_on(seen: Observations) -> Iterable[Finding]:
    if seen.always_on:
        yield Finding(
            "VS120",
            FindingLevel.ERROR,
            (),
            f"{len(seen.always_on)} dropout calls stay on in eval(): {', '.join(seen.always_on)}",
            {"dropouts": list(seen.always_on)},
            ("a functional call without training=self.training",),
        )


def _straight(seen: Observations, layers: Sequence[LayerRecord]) -> Iterable[Finding]:
    return _dropout(
        "VS101",
        "dropout straight before BatchNorm",
        [layer for layer in layers if _hit(layer, Case.STRAIGHT)],
        seen,
    )


def _through_weights(seen: Observations, layers: Sequence[LayerRecord]) -> Iterable[Finding]:
    return _dropout(
        "VS102",
        "dropout before BatchNorm through weights",
        [
            layer
            for layer in layers
            if _hit(layer, Case.THROUGH_WEIGHTS) and not _hit(layer, Case.STRAIGHT)
        ],
        seen,
    )


def _dropout(
    code: str, title: str, layers: Sequence[LayerRecord], seen: Observations
) -> Iterable[Finding]:
    moved = [layer for layer in layers if _moves(layer, "dropout")]
    if not moved:
        return
    names = list(dict.fromkeys(link.name for layer in moved for link in layer.dropouts))
    factor = _geometric(layer.factors.dropout for layer in moved)
    repaired = seen.buffers.describe is Describe.CLEAN
    direction = "falls" if factor < 1.0 else "rises"
    effect = (
        "the buffers already allow for it"
        if repaired
        else f"variance {direction} to about {factor:.2f} of it in eval()"
    )
    yield Finding(
        code,
        FindingLevel.NOTE if repaired else _loudness(moved),
        tuple(layer.name for layer in moved),
        f"{title}, {_count(moved)}: {effect}",
        {
            "dropout": factor,
            "lowest": min(layer.factors.dropout or 1.0 for layer in moved),
            "highest": max(layer.factors.dropout or 1.0 for layer in moved),
            "dropouts": names,
            "strength": _strength(moved, "dropout"),
        },
    )


def _stale(seen: Observations, layers: Sequence[LayerRecord]) -> Iterable[Finding]:
    if seen.buffers.describe is Describe.CLEAN:
        # Stale x dropout cancel on a repaired net; that is no fault of the buffers.
        return
    moved = [layer for layer in layers if _moves(layer, "stale")]
    if not moved:
        return
    factor = _geometric(layer.factors.stale for layer in moved)
    yield Finding(
        "VS210",
        _loudness(moved),
        tuple(layer.name for layer in moved),
        f"the running statistics of {_count(moved)} do not describe this data: a fresh pass with "
        f"dropout on gives {factor:.2f} of their variance",
        {
            "stale": factor,
            "lowest": min(layer.factors.stale or 1.0 for layer in moved),
            "highest": max(layer.factors.stale or 1.0 for layer in moved),
            "strength": _strength(moved, "stale"),
        },
        _STALE_RIVALS,
    )


def _inherited(layers: Sequence[LayerRecord]) -> Iterable[Finding]:
    moved = [
        layer
        for layer in layers
        if layer.cause is not None and "inherited" in layer.cause and _moves(layer, "inherited")
    ]
    if moved:
        yield Finding(
            "VS110",
            FindingLevel.NOTE if len(moved) < len(layers) else _loudness(moved),
            tuple(layer.name for layer in moved),
            f"passed on to {_count(moved)} from BatchNorm layers above; goes when those are "
            "repaired",
            {
                "inherited": _geometric(layer.factors.inherited for layer in moved),
                "strength": _strength(moved, "inherited"),
            },
        )


def _repaired(seen: Observations) -> Iterable[Finding]:
    if seen.buffers.describe is Describe.CLEAN:
        yield Finding(
            "VS130",
            FindingLevel.NOTE,
            (),
            "already repaired: the running statistics describe the network with dropout off",
            {"slope": seen.buffers.slope, "slope_se": seen.buffers.slope_se},
            ("BatchNorm frozen, or dropout off, while training",),
        )


def _hit(layer: LayerRecord, case: Case) -> bool:
    return any(link.case is case for link in layer.dropouts)


def _moves(layer: LayerRecord, factor: str) -> bool:
    """Whether a factor is away from 1 by more than noise."""
    value: float | None = getattr(layer.factors, factor)
    interval: Interval | None = getattr(layer.factor_intervals, factor)
    if value is None or abs(math.log(value)) < REAL:
        return False
    return interval is None or not interval.low <= 1.0 <= interval.high


def _loudness(layers: Sequence[LayerRecord]) -> FindingLevel:
    levels = {layer.level for layer in layers}
    if levels & {Level.STRONG, Level.SEVERE}:
        return FindingLevel.ERROR
    return FindingLevel.WARNING if Level.MILD in levels else FindingLevel.NOTE


def _strength(layers: Sequence[LayerRecord], factor: str) -> float:
    """Sum over layers of |ln factor|: how much of the whole shift this explains."""
    return sum(abs(math.log(getattr(layer.factors, factor) or 1.0)) for layer in layers)


def _geometric(values: Iterable[float | None]) -> float:
    logs = [math.log(value) for value in values if value]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def _count(items: Sequence[object]) -> str:
    return "1 layer" if len(items) == 1 else f"{len(items)} layers"


def _is_finite(site: BatchNormSite) -> bool:
    return not _broken_channels(site)


def _broken_channels(site: BatchNormSite) -> list[int]:
    broken = ~site.running_mean.isfinite() | ~site.running_var.isfinite() | (site.running_var < 0.0)
    found: list[int] = broken.nonzero().flatten().tolist()
    return found


def _is_initial(site: BatchNormSite) -> bool:
    if site.updates is not None and int(site.updates) != 0:
        return False
    return bool((site.running_mean == 0.0).all()) and bool((site.running_var == 1.0).all())
