"""Why figures of a report are null, by their path in its JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from varshift_cli.diagnosis.probed import UNREGISTERED
from varshift_cli.measurement import Measurement
from varshift_cli.measurement.figures import misfit
from varshift_cli.pipeline.studies import Studies
from varshift_cli.records import NO_LABELS, BuffersRecord, Effect, LayerRecord

_OF_TRAIN = ("stale", "dropout")
"""Factors that need to know what training sees."""

_MODULES_ALONE = (
    "the forward calls autograd, so that only modules could be seen: functional dropout and "
    "functional batch_norm, if there are any, are not among these"
)
_NOT_PROBED = (
    "noise that is not registered was not looked for: with every flag in train the forward raised"
)

Reasons = Iterator[tuple[str, str | None]]
"""Paths and reasons; a figure is known where there is none."""


def reasons_of_effect(
    effect: Effect | None, no_effect: str | None, outputs: Tensor | None, targets: Tensor | None
) -> Reasons:
    """Of what recalibration would change.

    Args:
        effect: What is known of it.
        no_effect: Why nothing is, if so.
        outputs: Of the network in eval mode, shape (samples, ...).
        targets: In the data, shape (samples, ...).
    """
    yield "effect", no_effect
    if effect is None or effect.accuracy is not None:
        return
    if targets is None:
        yield "effect.accuracy", NO_LABELS
    else:
        values = effect.r2 is not None
        yield "effect.accuracy", "targets are values" if values else misfit(outputs, targets)


def reasons_of_buffers(buffers: BuffersRecord, no_slope: str | None) -> Reasons:
    """Of what the buffers describe."""
    if buffers.slope is None:
        yield "buffers.slope", no_slope
        return
    yield "buffers.describe", no_slope
    if buffers.slope_se is None:
        yield "buffers.slope_se", "too few layers"


def reasons_of_layers(
    measured: Measurement,
    layers: Sequence[LayerRecord],
    studies: Studies,
    without_noise: str | None,
) -> Reasons:
    """Of each layer's shift, factors and attribution.

    Args:
        measured: What the passes brought.
        layers: Its records, in the same order.
        studies: What the extra passes brought.
        without_noise: Why dropout is gone from the model, if it is.
    """
    for index, (layer, record) in enumerate(zip(measured.layers, layers, strict=True)):
        if record.shift is None:
            yield f"layers.{index}.shift", _why_no_shift(record)
        suspect = layer.key in measured.probe.suspect
        no_train = UNREGISTERED if suspect else without_noise
        for name in _OF_TRAIN:
            yield f"layers.{index}.factors.{name}", no_train
        if record.attribution is None:
            own = studies.attribution.get(layer.key)
            reason = studies.no_attribution if own is None else own.reason
            yield f"layers.{index}.attribution", reason


def reasons_of_lists(measured: Measurement, *, modules_alone: bool) -> Reasons:
    """Of dropouts and findings: why there may be more than the report lists.

    Args:
        measured: What the passes brought.
        modules_alone: Whether calls of functions could not be seen.
    """
    if modules_alone:
        yield "dropouts", _MODULES_ALONE
    if measured.probe.failed is not None:
        yield "findings", f"{_NOT_PROBED} {measured.probe.failed}"


def _why_no_shift(layer: LayerRecord) -> str:
    if layer.dead_channels == layer.num_features:
        return "every channel is dead"
    return "a variance is not finite"
