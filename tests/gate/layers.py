"""Layers and reports for the gate to judge."""

from dataclasses import replace

from tests import samples
from varshift_cli.records import Interval, LayerRecord, Report


def layer(name: str, shift: float | None, low: float | None = None, high: float | None = None):
    """A layer with this shift and interval; everything else is a sample's."""
    interval = None if low is None else Interval(low, high)
    first: LayerRecord = samples.shifted().layers[0]
    return replace(first, name=name, shift=shift, shift_interval=interval)


def report(*layers: LayerRecord, **changes) -> Report:
    """A report of these layers, on 1,000 samples."""
    return replace(samples.shifted(), layers=layers, findings=(), **changes)
