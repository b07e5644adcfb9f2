"""VS204 to VS211: buffers that are not those of these weights."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from varshift_cli.diagnosis.evidence import Evidence
from varshift_cli.diagnosis.observations import (
    Observations,
    Question,
    counted,
    finding,
    loudness,
    spanned,
)
from varshift_cli.records import MEAN_IS_OFF, Finding, FindingLevel

_FLIPPED = 0.5
"""Momentum from which the last batch outweighs all others."""
_EXPLAINED = 0.5
"""Share of the distance that a fit must take away."""
_SETTLED = 0.99
"""Share of the way to T from which buffers have arrived."""
_SPARSE = 0.1
_FEW_VALUES = 257
_STEPS = 100


def frozen(asked: Question) -> Finding | None:
    """VS209: layers that stay in eval() while the model trains, or whose counter stood still."""
    counts = {
        each.layer.key.name: int(each.layer.site.updates)
        for each in asked.every
        if each.layer.site.updates is not None
    }
    most = max(counts.values(), default=0)
    behind = {name for name, count in counts.items() if count < most}
    held = asked.seen.frozen
    off = [each for each in asked.off if each.layer.key.name in (held | behind)]
    if not off:
        return None
    how = "stay in eval() while the model trains" if held else "were updated less than the others"
    return finding(
        "VS209",
        off,
        f"the statistics of {counted(off)} look out of date, and these layers {how}: frozen. The "
        "network was trained with them as they are; leave them",
        {"updates": {name: counts.get(name) for name in sorted(held | behind)}, "most": most},
        ("stale, not frozen: labels decide, by accuracy as it is and recalibrated",),
    )


def averaged(asked: Question) -> Finding | None:
    """VS207: averaged weights whose buffers were not recomputed."""
    off = asked.off
    if asked.seen.averaged is None or not off:
        return None
    return finding(
        "VS207",
        off,
        f"averaged weights ({asked.seen.averaged}), and the statistics of {counted(off)} are not "
        "theirs",
        {"averaged": asked.seen.averaged},
        asked.other_data,
    )


def changed_weights(asked: Question) -> Finding | None:
    """VS208: pruned or quantised weights."""
    off = asked.off
    sparse = [
        each for each in asked.seen.facts.weights if _SPARSE < each.zeros < 1.0 - 1.0 / _FEW_VALUES
    ]
    coarse = [
        each
        for each in asked.seen.facts.weights
        if each.distinct < _FEW_VALUES and each.distinct < each.looked_at // 4
    ]
    if not off or not (sparse or coarse):
        return None
    parts = []
    if sparse:
        share = statistics.mean(each.zeros for each in sparse)
        parts.append(f"{share:.0%} of {len(sparse)} weights are exactly 0")
    if coarse:
        values = max(each.distinct for each in coarse)
        parts.append(f"{len(coarse)} weights hold at most {values} different values")
    return finding(
        "VS208",
        off,
        f"{'; '.join(parts)}, and the statistics of {counted(off)} are those from before",
        {
            "zeros": {each.name: each.zeros for each in sparse},
            "distinct": {each.name: each.distinct for each in coarse},
        },
        asked.other_data,
    )


def one_batch(asked: Question) -> Finding | None:
    """VS205: momentum near 1."""
    hit = [each for each in asked.left if each.alpha >= _FLIPPED]
    if not hit:
        return None
    like = statistics.median(each.like_samples for each in hit)
    alpha = max(each.alpha for each in hit)
    return finding(
        "VS205",
        hit,
        f"momentum {alpha:g} keeps little but the last batch: the statistics of {counted(hit)} "
        f"scatter like those of about {min(like, 1e6):.0f} samples",
        {"momentum": alpha, "like_samples": min(like, 1e6)},
        ("a momentum that only the code of today has: then the scatter would be smaller",),
    )


def too_few(asked: Question) -> Finding | None:
    """VS204: all channels at the same share of the way from the initial values to T."""
    off = [each for each in asked.off if each.alpha < _FLIPPED]
    if not off:
        return None
    known = _known_share(off)
    share = known if known is not None and known < _SETTLED else _best_share(off)
    explained = 1.0 - _left(off, share) / max(_left(off, 1.0), 1e-12)
    needed = _EXPLAINED if share == known else 1.3 * _EXPLAINED
    if share >= _SETTLED or explained < needed:
        return None
    updates = [int(each.layer.site.updates) for each in off if each.layer.site.updates is not None]
    told = f"{min(updates)} updates at momentum {off[0].alpha:g}: " if updates else ""
    return finding(
        "VS204",
        off,
        f"{told}the statistics of {counted(off)} went {share:.0%} of the way from mean 0, variance "
        "1 to what the data show",
        {
            "share": share,
            "explained": explained,
            "updates": min(updates, default=None),
            "momentum": off[0].alpha,
        },
        () if share == known else (*asked.other_probability, *asked.other_data),
    )


def _known_share(layers: Sequence[Evidence]) -> float | None:
    """1 - (1 - momentum)^k of the least updated layer."""
    counts = [each.layer.site.updates for each in layers]
    shares = [
        1.0 - (1.0 - each.alpha) ** int(count)
        for each, count in zip(layers, counts, strict=True)
        if count is not None and int(count) > 0
    ]
    return min(shares, default=None)


def _best_share(layers: Sequence[Evidence]) -> float:
    return min((step / _STEPS for step in range(1, _STEPS + 1)), key=lambda s: _left(layers, s))


def _left(layers: Sequence[Evidence], share: float) -> float:
    """Distance that remains if all buffers went this share of the way."""
    return sum(
        each.distance_to(share * each.train_mean, (1.0 - share) + share * each.train_var)
        for each in layers
    )


def stale(asked: Question) -> Finding | None:
    """VS210: whatever no narrower cause explains."""
    off = asked.off
    if not off:
        return None
    factors = [math.exp(each.signed) for each in off]
    data = "this data" if asked.seen.train_data is None else "this data, nor the training data"
    means = {each.name: each.drift_size for each in off if "mean" in each.off_in}
    numbers: dict[str, object] = {}
    if (dropout := asked.dropout) is not None:
        both = dropout.probability(asked.seen.dropouts)
        numbers = {"dropout_times": dropout.factor, "probability": both and both[1]}
    return finding(
        "VS210",
        off,
        f"the running statistics of {counted(off)} do not describe {data}: {_how_far(off)}",
        {"lowest": min(factors), "highest": max(factors), "means": means, **numbers},
        (
            *asked.other_probability,
            *asked.other_data,
            "weights changed after the last update (EMA, SWA, merging)",
            "small training batches: scan with --train-batch-size",
            *asked.unmixed_batches,
        ),
        level=_level(off, max(means.values(), default=0.0)),
    )


def _level(off: Sequence[Evidence], drift: float) -> FindingLevel:
    """As loud as the variances; a mean that is far off is more than a note by itself."""
    level = loudness([each.record for each in off])
    quiet = level is FindingLevel.NOTE
    return FindingLevel.WARNING if quiet and drift > MEAN_IS_OFF else level


def _how_far(off: Sequence[Evidence]) -> str:
    """By what each layer is off: its variance, that of single channels, or its mean alone."""
    sized = [each for each in off if "size" in each.off_in]
    scattered = [each for each in off if "scatter" in each.off_in and each not in sized]
    moved = [each for each in off if each not in sized and each not in scattered]
    told = []
    if sized:
        whose = "their variance" if len(sized) == len(off) else f"the variance of {counted(sized)}"
        given = spanned([math.exp(each.signed) for each in sized])
        told.append(f"a fresh pass with dropout on gives {given} of {whose}")
    if scattered:
        worst = max(scattered, key=lambda each: each.distance)
        told.append(
            f"the variances{_at(worst, scattered)} are off by a factor of "
            f"{math.exp(worst.distance):.2f} on average, channels up and down"
        )
    if moved:
        worst = max(moved, key=lambda each: each.drift_size)
        told.append(
            f"the running mean{_at(worst, moved)} is off by {worst.drift_size:.2f} standard "
            "deviations on average, its variance is not"
        )
    return "; ".join(told)


def _at(worst: Evidence, layers: Sequence[Evidence]) -> str:
    """Names the layer that a figure is of, and says of how many it is the worst."""
    return f" of {worst.name}" + (f" (worst of {counted(layers)})" if len(layers) > 1 else "")


def odd_buffers(seen: Observations, left: Sequence[Evidence]) -> list[Finding]:
    """Notes: VS206 never counted, VS211 half-frozen."""
    found = []
    counts = [each.layer.site.updates for each in left]
    if counts and all(count is not None and int(count) == 0 for count in counts):
        found.append(
            finding(
                "VS206",
                left,
                f"num_batches_tracked is 0 in {counted(left)} whose statistics have moved",
                {"updates": 0},
                ("converted from another framework",),
                level=FindingLevel.NOTE,
            )
        )
    half = [each for each in left if each.layer.key.name in seen.facts.untrained_affine]
    if half:
        found.append(
            finding(
                "VS211",
                half,
                f"scale and offset of {counted(half)} are exactly 1 and 0, while their statistics "
                "have moved: frozen by one half, or never trained",
                {"layers": len(half)},
                level=FindingLevel.NOTE,
            )
        )
    return found
