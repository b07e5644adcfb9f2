"""VS201, VS202, VS203, VS408, VS120: what is broken before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator

from varshift_cli.diagnosis.observations import Observations, counted
from varshift_cli.instrument import BatchNormSite
from varshift_cli.records import Finding, FindingLevel

_TRAINED_IN_EVAL = (
    "trained in eval mode, where these statistics are right: only labels can tell; compare "
    "accuracy in eval() before any repair"
)


def broken(seen: Observations) -> Iterator[Finding]:
    """All of them, the plainest first."""
    buffers = list(_non_finite(seen))
    yield from buffers
    if not buffers:  # else it is they who make everything behind them NaN
        yield from _non_finite_inputs(seen)
    yield from _missing(seen)
    yield from _never_updated(seen)
    yield from _always_on(seen)


def _non_finite(seen: Observations) -> Iterator[Finding]:
    bad = [site for site in seen.sites if _broken_channels(site)]
    if bad:
        yield Finding(
            "VS202",
            FindingLevel.ERROR,
            tuple(site.name for site in bad),
            f"running statistics of {counted(bad)} are not finite, or a variance is negative: "
            "eval() returns NaN or nonsense",
            {site.name: _broken_channels(site) for site in bad},
        )


def _non_finite_inputs(seen: Observations) -> Iterator[Finding]:
    bad = [
        layer
        for layer in seen.layers
        if layer.shift is None and layer.dead_channels < layer.num_features
    ]
    if bad:
        weights = seen.facts.non_finite
        some = ", ".join(weights[:3]) + (", ..." if len(weights) > 3 else "")
        why = f"; NaN or infinity stands in {some}" if weights else ""
        yield Finding(
            "VS408",
            FindingLevel.ERROR,
            tuple(layer.name for layer in bad),
            f"what enters {counted(bad)} is not finite, first {bad[0].name}{why}",
            {"first": bad[0].name, "parameters": list(weights)},
            () if weights else ("activations overflow: the dtype, or data of another scale",),
        )


def _missing(seen: Observations) -> Iterator[Finding]:
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in seen.missing_buffers))
    if owners:
        yield Finding(
            "VS203",
            FindingLevel.ERROR,
            tuple(owners),
            f"the checkpoint holds no running statistics for {counted(owners)}: "
            "they stay at mean 0, variance 1",
            {"missing": list(seen.missing_buffers)},
            ("renamed keys; compare the checkpoint's keys with the model's",),
        )


def _never_updated(seen: Observations) -> Iterator[Finding]:
    missing = {name.rpartition(".")[0] for name in seen.missing_buffers}
    fresh = [site for site in seen.sites if site.name not in missing and site.never_updated]
    if fresh:
        yield Finding(
            "VS201",
            FindingLevel.ERROR,
            tuple(site.name for site in fresh),
            f"running statistics of {counted(fresh)} were never updated: mean 0 and variance 1 in "
            "every channel",
            {"num_batches_tracked": 0},
            (_TRAINED_IN_EVAL,),
        )


def _always_on(seen: Observations) -> Iterator[Finding]:
    if seen.always_on:
        yield Finding(
            "VS120",
            FindingLevel.ERROR,
            (),
            f"{len(seen.always_on)} dropout calls stay on in eval(): {', '.join(seen.always_on)}",
            {"dropouts": list(seen.always_on)},
            ("a functional call without training=self.training",),
        )


def _broken_channels(site: BatchNormSite) -> list[int]:
    broken = ~site.running_mean.isfinite() | ~site.running_var.isfinite() | (site.running_var < 0.0)
    found: list[int] = broken.nonzero().flatten().tolist()
    return found
