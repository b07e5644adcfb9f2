"""VS101 to VS130: noise before BatchNorm (BN), and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from varshift_cli.diagnosis.evidence import REAL
from varshift_cli.diagnosis.observations import (
    Observations,
    counted,
    geometric,
    loudness,
    spanned,
)
from varshift_cli.measurement import LayerMoments
from varshift_cli.records import (
    MEAN_IS_OFF,
    Case,
    Describe,
    Finding,
    FindingLevel,
    Interval,
    LayerRecord,
)
from varshift_cli.statistics import live_channels

_PATHS = frozenset({"drop_path", "stochastic_depth", "drop_connect", "shake_drop", "shake_shake"})
"""Kinds of noise that drop a branch of a sample at once."""
_ORDINARY = frozenset({"dropout", "feature_dropout", "gaussian_dropout", "uout", "drop_block"})
"""Kinds that leave the mean where it is."""
_MEAN_MOVED = 0.1
"""In standard deviations of the clean pass."""


def noises(seen: Observations, layers: Sequence[LayerRecord]) -> Iterator[Finding]:
    """One finding for each way in which noise reaches BN and moves its variance."""
    kinds = {dropout.name: dropout.kind for dropout in seen.dropouts}
    moved = [layer for layer in layers if moves(layer, "dropout") and layer.dropouts]
    by_code: dict[str, list[LayerRecord]] = {code: [] for code in _TITLES}
    for layer in moved:
        by_code[_code(layer, kinds, seen.moments, seen.layers)].append(layer)
    for code, hit in by_code.items():
        if hit:
            yield _finding(code, hit, seen)


_TITLES = {
    "VS101": "dropout straight before BatchNorm",
    "VS102": "dropout before BatchNorm through weights",
    "VS103": "stochastic depth before BatchNorm",
    "VS104": "noise that moves the mean before BatchNorm",
}


def _code(
    layer: LayerRecord,
    kinds: Mapping[str, str],
    moments: Sequence[LayerMoments],
    layers: Sequence[LayerRecord],
) -> str:
    reaching = {kinds.get(link.name, "dropout") for link in layer.dropouts}
    if reaching <= _PATHS:
        return "VS103"
    strange = reaching - _PATHS - _ORDINARY
    if strange and _mean_moved(layer, moments, layers) > _MEAN_MOVED:
        return "VS104"
    straight = any(link.case is Case.STRAIGHT for link in layer.dropouts)
    return "VS101" if straight else "VS102"


def _mean_moved(
    layer: LayerRecord, moments: Sequence[LayerMoments], layers: Sequence[LayerRecord]
) -> float:
    """Mean over channels of |mean_T - mean_C|/sqrt(C + eps)."""
    found = next(
        (each for each, record in zip(moments, layers, strict=True) if record is layer), None
    )
    if found is None:
        return math.inf
    train, clean = found.train.pooled(), found.clean.pooled()
    alive = live_channels(clean.var, clean.var, found.eps)
    moved = (train.mean - clean.mean).abs() / (clean.var + found.eps).sqrt()
    return float(moved[alive].mean()) if bool(alive.any()) else 0.0


def moved_means(seen: Observations, layers: Sequence[LayerRecord]) -> Iterator[Finding]:
    """VS105: what enters BN has another mean without the noise, whatever its variance does."""
    hit = [
        layer
        for layer in layers
        if (layer.mean_shift or 0.0) > MEAN_IS_OFF
        and 2.0 * _mean_moved(layer, seen.moments, seen.layers) > MEAN_IS_OFF
    ]
    if not hit or seen.buffers.describe is Describe.CLEAN:
        return
    worst = max(hit, key=lambda layer: layer.mean_shift or 0.0)
    yield Finding(
        "VS105",
        FindingLevel.WARNING,
        tuple(layer.name for layer in hit),
        f"dropout moves the mean before {counted(hit)}: in eval() it is off by up to "
        f"{worst.mean_shift:.2f} standard deviations ({worst.name}), as after max pooling",
        {"mean_shift": worst.mean_shift, "strength": math.log1p(worst.mean_shift or 0.0)},
    )


def _finding(code: str, moved: Sequence[LayerRecord], seen: Observations) -> Finding:
    names = list(dict.fromkeys(link.name for layer in moved for link in layer.dropouts))
    against = [layer for layer in moved if _is_against(layer, seen)]
    alone = [layer for layer in moved if layer not in against]
    repaired = seen.buffers.describe is Describe.CLEAN
    factors = _factors(alone or against)
    return Finding(
        code,
        FindingLevel.NOTE if repaired else loudness(moved),
        tuple(layer.name for layer in moved),
        f"{_TITLES[code]}, {counted(moved)}: "
        + ("the buffers already allow for it" if repaired else _effect(alone, against)),
        {
            "dropout": geometric(factors),
            "lowest": min(factors),
            "highest": max(factors),
            "dropouts": names,
            "against_each_other": {layer.name: layer.factors.dropout for layer in against},
            "strength": _strength(moved, "dropout"),
        },
    )


def _factors(layers: Sequence[LayerRecord]) -> list[float]:
    return [layer.factors.dropout or 1.0 for layer in layers]


def _effect(alone: Sequence[LayerRecord], against: Sequence[LayerRecord]) -> str:
    """What switching dropout off does; told apart where dropouts work against each other.

    The sum of the two would otherwise be read as what a dropout straight before BN does.
    """
    told = []
    if alone:
        given = spanned(_factors(alone))
        told.append(f"with it off, as in eval(), variance is {given} of that in training")
    if against:
        where = against[0].name if len(against) == 1 else counted(against)
        both = _parts(against[0]) if len(against) == 1 else None
        where += "" if both is None else f" ({both[0]:.2f} x {both[1]:.2f})"
        given = spanned(_factors(against))
        told.append(
            f"where dropouts work against each other, in {where}, it is {given}"
            if alone
            else f"dropouts work against each other in {where}: with all off, as in eval(), "
            f"variance is {given} of that in training"
        )
    return "; ".join(told)


def _is_against(layer: LayerRecord, seen: Observations) -> bool:
    """Whether the dropout factor is what is left of two opposite effects.

    By the shares of single dropouts where they are known: half of the larger part is gone. Else by
    the law of total variance: ordinary noise straight before BN only ever adds variance, so that
    with a factor above 1 something further up must work against it.
    """
    both = _parts(layer)
    if both is not None:
        down, up = (abs(math.log(each)) for each in both)
        return abs(math.log(layer.factors.dropout or 1.0)) < max(down, up) / 2.0
    kinds = {dropout.name: dropout.kind for dropout in seen.dropouts}
    straight = [link.name for link in layer.dropouts if link.case is Case.STRAIGHT]
    ordinary = any(kinds.get(name) in _ORDINARY for name in straight)
    return ordinary and len(kinds) > 1 and (layer.factors.dropout or 1.0) > 1.0


def _parts(layer: LayerRecord) -> tuple[float, float] | None:
    """What the dropouts that lower the variance do together, and those that raise it."""
    shares = [each.share for each in layer.attribution or ()]
    down = math.fsum(each for each in shares if each < 0.0)
    up = math.fsum(each for each in shares if each > 0.0)
    return (math.exp(down), math.exp(up)) if shares else None


def inherited(layers: Sequence[LayerRecord], *, named: bool) -> Iterator[Finding]:
    """VS110: what layers further up pass on.

    Args:
        layers: All that are not broken.
        named: Whether a cause was found in any layer.
    """
    moved = [
        layer
        for layer in layers
        if layer.cause is not None and "inherited" in layer.cause and moves(layer, "inherited")
    ]
    if not moved:
        return
    own = [(layer, factor) for layer in moved if (factor := _own(layer)) is not None]
    goes = (
        "goes when those are repaired" if named else "none of those is off by itself beyond chance"
    )
    yield Finding(
        "VS110",
        FindingLevel.NOTE if len(moved) < len(layers) else loudness(moved),
        tuple(layer.name for layer in moved),
        f"passed on to {counted(moved)} from BatchNorm layers above; "
        + ("that part " * (named and bool(own)) + goes)
        + _stays([factor for _, factor in own], len(moved)),
        {
            "inherited": geometric(layer.factors.inherited for layer in moved),
            "of_their_own": {layer.name: factor for layer, factor in own},
            "strength": _strength(moved, "inherited"),
        },
    )


_OWN = ("stale", "batch", "dropout")
"""Factors that do not come from layers further up."""


def _own(layer: LayerRecord) -> float | None:
    """What E/R would be once the layers above are repaired; ``None`` where that is no fault."""
    factors = [value for name in _OWN if (value := getattr(layer.factors, name)) is not None]
    own = math.prod(factors)
    is_off = own > 0.0 and abs(math.log(own)) >= REAL
    return own if is_off and any(moves(layer, name) for name in _OWN) else None


def _stays(own: Sequence[float], moved: int) -> str:
    """``; 2 of them are off by themselves as well ...``; nothing where none is."""
    if not own:
        return ""
    if moved == 1:
        who = "it is off by itself as well"
    elif len(own) == 1:
        who = "1 of them is off by itself as well"
    else:
        many = "all" if len(own) == moved else len(own)
        who = f"{many} of them are off by themselves as well"
    them = "it is" if len(own) == 1 else "they are"
    return f"; {who} (E/R {spanned(own)} without that part), until {them} repaired too"


def repaired(seen: Observations) -> Iterator[Finding]:
    """VS130: the buffers describe the network with dropout off."""
    if seen.buffers.describe is Describe.CLEAN:
        yield Finding(
            "VS130",
            FindingLevel.NOTE,
            (),
            "already repaired: the running statistics describe the network with dropout off",
            {"slope": seen.buffers.slope, "slope_se": seen.buffers.slope_se},
            ("BatchNorm frozen, or dropout off, while training",),
        )


def moves(layer: LayerRecord, factor: str) -> bool:
    """Whether a factor is away from 1 by more than noise."""
    value: float | None = getattr(layer.factors, factor)
    interval: Interval | None = getattr(layer.factor_intervals, factor)
    if value is None or abs(math.log(value)) < REAL:
        return False
    return interval is None or not interval.low <= 1.0 <= interval.high


def _strength(layers: Sequence[LayerRecord], factor: str) -> float:
    """Sum over layers of |ln factor|: how much of the whole shift this explains."""
    return sum(abs(math.log(getattr(layer.factors, factor) or 1.0)) for layer in layers)
