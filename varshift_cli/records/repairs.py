"""What a repair changed, and its proof."""

from __future__ import annotations

from dataclasses import dataclass

from varshift_cli.records.layers import Interval, Skipped
from varshift_cli.records.report import CheckpointRecord


@dataclass(frozen=True, slots=True)
class LayerRepair:
    """What a repair did to one BN layer."""

    name: str
    shift_before: float
    shift_after: float
    """max over channels of |ln((E+eps)/(R+eps))|, exp; by a separate eval pass after the repair."""


@dataclass(frozen=True, slots=True)
class RepairRecord:
    """What ``recalibrate`` changed, and the proof by a separate eval pass."""

    method: str
    layers: tuple[LayerRepair, ...]
    skipped: tuple[Skipped, ...]
    residual: float
    """Worst ``shift_after - 1`` over layers."""
    samples: int
    batches: int
    windows: int
    procedure: str
    """``lockstep`` or ``layer by layer``."""
    accuracy_before: float | None = None
    accuracy_after: float | None = None


@dataclass(frozen=True, slots=True)
class FixRecord:
    """One ``varshift fix``: what was written where, and what it brought."""

    checkpoint: CheckpointRecord
    output: str | None
    """``None`` for a dry run."""
    sidecar: str | None
    output_sha256: str | None
    changed_buffers: int
    changed_bytes: int
    repair: RepairRecord
    worst_before: float
    worst_layer_before: str
    worst_after: float
    above_before: int
    """Layers whose shift exceeded 1.25 before."""
    above_after: int
    measured: int
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """A figure of the user's own before and after a repair."""

    name: str
    """``accuracy`` or ``loss``."""
    data: str
    """What it was measured on: ``calib.npz``, ``heldout.npz``."""
    before: float
    after: float
    samples: int
    difference: Interval | None = None
    """95 % interval of after - before, from paired per-sample differences."""
