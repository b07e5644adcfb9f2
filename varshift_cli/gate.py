"""The gate: measured layers and a threshold in, a verdict out.

The gate decides on intervals, not on points: a layer fails when its whole 95 % interval lies
above the threshold, and nothing passes while a threshold lies inside an interval, or while a
layer has a shift but no interval. Sampling noise alone can so turn a pass into *inconclusive*,
but hardly into a failure. "Nothing was measured" is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from varshift_cli.errors import NothingToMeasureError, UsageError
from varshift_cli.records import Finding, LayerRecord, Status, Verdict, worst_layer

NON_FINITE = "VS202"
"""The finding that fails any gate by itself: such a network has no meaningful output."""

_EXIT_CODES = {
    Status.PASS: 0,
    Status.NOT_GATED: 0,
    Status.FAIL: 1,
    Status.INCONCLUSIVE: 4,
}


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
    broken = _non_finite_layers(findings)
    worst = worst_layer(layers)
    if worst is None and not broken:
        raise NothingToMeasureError(
            "no BatchNorm layer was measured, so there is nothing to judge",
            hint="the layers that were skipped, and why, are in the report",
        )
    if max_shift is None:
        return _verdict(Status.NOT_GATED, None, worst)
    if broken:
        return Verdict(Status.FAIL, max_shift, worst_layer=broken[0], worst_shift=None)
    if failing := worst_layer([layer for layer in layers if _fails(layer, max_shift)]):
        return _verdict(Status.FAIL, max_shift, failing)
    if undecided := worst_layer([layer for layer in layers if _is_undecided(layer, max_shift)]):
        return _verdict(Status.INCONCLUSIVE, max_shift, undecided)
    return _verdict(Status.PASS, max_shift, worst)


def exit_code(verdict: Verdict) -> int:
    """The process exit code: 0 pass or not gated, 1 fail, 4 inconclusive."""
    return _EXIT_CODES[verdict.status]


def check_threshold(max_shift: float | None) -> None:
    """Refuse a threshold that no ratio >= 1 can be compared with.

    Raises:
        UsageError: It is not a number >= 1.
    """
    if max_shift is None or (math.isfinite(max_shift) and max_shift >= 1):
        return
    raise UsageError(
        f"--max-shift must be a ratio of at least 1, but is {max_shift:g}",
        hint="1.25 allows a mild shift; 1.05 hardly any",
    )


def _non_finite_layers(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(
        name for finding in findings if finding.code == NON_FINITE for name in finding.layers
    )


def _fails(layer: LayerRecord, max_shift: float) -> bool:
    return layer.shift_interval is not None and layer.shift_interval.low > max_shift


def _is_undecided(layer: LayerRecord, max_shift: float) -> bool:
    if layer.shift is None:
        return False
    interval = layer.shift_interval
    return interval is None or interval.low <= max_shift < interval.high


def _verdict(status: Status, threshold: float | None, layer: LayerRecord | None) -> Verdict:
    return Verdict(
        status,
        threshold,
        worst_layer=None if layer is None else layer.name,
        worst_shift=None if layer is None else layer.shift,
    )
