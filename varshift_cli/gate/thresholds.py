"""One threshold for all layers, and which thresholds there can be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from varshift_cli.errors import NothingToMeasureError, UsageError
from varshift_cli.records import (
    NON_FINITE,
    Finding,
    LayerRecord,
    Outcome,
    Policy,
    Status,
    Verdict,
    outcome_of,
    worst_layer,
)


def judge(
    layers: Sequence[LayerRecord],
    max_shift: float | None,
    findings: Sequence[Finding] = (),
) -> Verdict:
    """Compare every layer's shift with a threshold.

    Args:
        layers: The measured layers, in execution order.
        max_shift: The largest ``shift`` allowed, a ratio >= 1; ``None`` reports without gating.
        findings: The report's findings; non-finite buffers among them fail the gate.

    Returns:
        The verdict. Its ``worst_layer`` is the one that decides: the worst failing layer, else
        the worst undecided one, else the worst of all. Where non-finite buffers decide, it is
        their first layer, and its shift is unknown.

    Raises:
        UsageError: The threshold is not a number >= 1.
        NothingToMeasureError: No layer has a shift, and no finding decides without one.
    """
    check_threshold(max_shift)
    broken = non_finite_layers(findings)
    worst = worst_layer(layers)
    if worst is None and not broken:
        raise _nothing_to_judge(layers)
    if max_shift is None:
        return verdict_on(Status.NOT_GATED, None, worst)
    if broken:
        return Verdict(Status.FAIL, max_shift, worst_layer=broken[0], worst_shift=None)
    outcomes = [outcome_of(layer, max_shift) for layer in layers]
    for outcome, status in (
        (Outcome.FAIL, Status.FAIL),
        (Outcome.INCONCLUSIVE, Status.INCONCLUSIVE),
    ):
        if decisive := worst_with(outcome, layers, outcomes):
            return verdict_on(status, max_shift, decisive)
    return verdict_on(Status.PASS, max_shift, worst)


def _nothing_to_judge(layers: Sequence[LayerRecord]) -> NothingToMeasureError:
    dead = [each.name for each in layers if each.dead_channels == each.num_features]
    if not dead or len(dead) < len(layers):
        return NothingToMeasureError("no BatchNorm layer has a shift, so there is nothing to judge")
    more = f" and {len(dead) - 1} more BatchNorm layers" if len(dead) > 1 else ""
    return NothingToMeasureError(
        f"nothing to measure: every channel of {dead[0]}{more} is dead, its variance all but zero "
        "both as stored and on these data",
        hint="Weights of zero before it, or data of zeros? varshift lint MODEL tells what is "
        "stored.",
    )


def check_threshold(max_shift: float | None, where: str = "--max-shift") -> None:
    """Refuse a threshold that no ratio >= 1 can be compared with.

    Raises:
        UsageError: It is not a number >= 1.
    """
    if max_shift is None or (math.isfinite(max_shift) and max_shift >= 1):
        return
    raise UsageError(
        f"{where} must be a ratio of at least 1, but is {max_shift:g}",
        hint="1.25 allows a mild shift; 1.05 hardly any",
    )


def check_policy(policy: Policy) -> None:
    """Refuse thresholds that nothing can be compared with.

    Raises:
        UsageError: A shift is not a number >= 1, a share not between 0 and 1, R2 above 1, or a
            threshold no number.
    """
    check_threshold(policy.max_shift)
    for rule in policy.layers:
        check_threshold(rule.max_shift, f"max-shift of layers {rule.pattern!r}")
    for name in ("max_changed_predictions", "min_accuracy"):
        value = getattr(policy, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(
                f"{name.replace('_', '-')} must be a share between 0 and 1, but is {value:g}",
                hint="0.98 is 98 %",
            )
    if policy.min_r2 is not None and not -math.inf < policy.min_r2 <= 1:
        raise UsageError(
            f"min-r2 must be a number of at most 1, but is {policy.min_r2:g}",
            hint="1 is a perfect fit, 0 no better than the mean of the targets",
        )
    if policy.min_metric is not None and not math.isfinite(policy.min_metric):
        raise UsageError(f"min-metric must be a finite number, but is {policy.min_metric:g}")


def non_finite_layers(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The layers whose buffers are not finite."""
    return tuple(
        name for finding in findings if finding.code in NON_FINITE for name in finding.layers
    )


def worst_with(
    outcome: Outcome, layers: Sequence[LayerRecord], outcomes: Sequence[Outcome]
) -> LayerRecord | None:
    """The layer with the largest shift among those with this outcome."""
    pairs = zip(layers, outcomes, strict=True)
    return worst_layer([layer for layer, each in pairs if each is outcome])


def verdict_on(status: Status, threshold: float | None, layer: LayerRecord | None) -> Verdict:
    """A verdict that names this layer."""
    return Verdict(
        status,
        threshold,
        worst_layer=None if layer is None else layer.name,
        worst_shift=None if layer is None else layer.shift,
    )
