"""What a repair changed, and its proof."""

from __future__ import annotations

from dataclasses import dataclass

from varshift_cli.records.layers import Interval, Skipped
from varshift_cli.records.report import CheckpointRecord


@dataclass(frozen=True, slots=True)
class DropoutChange:
    """One module that ``move_dropout`` or ``swap_dropout`` put in place of another."""

    name: str
    before: str
    """As ``print`` shows it: ``Dropout(p=0.5, inplace=False)``."""
    after: str


@dataclass(frozen=True, slots=True)
class LayerRepair:
    """What a repair did to one BN layer."""

    name: str
    shift_before: float
    """exp of the mean over live channels of |ln((E+eps)/(R+eps))|: a scan's ``shift``, without its
    correction for the noise of an absolute value."""
    shift_after: float
    """The same by a separate eval pass after the repair."""


@dataclass(frozen=True, slots=True)
class RepairRecord:
    """What ``recalibrate`` or ``correct`` changed, and the proof by a separate eval pass."""

    method: str
    layers: tuple[LayerRepair, ...]
    skipped: tuple[Skipped, ...]
    residual: float
    """The proof: over layers, the largest exp of max over channels of |ln((E+eps)/(R+eps))|, less
    1; for ``correct``, which leaves what is not dropout's doing, the largest ``shift_after - 1``.
    """
    samples: int
    batches: int
    windows: int
    procedure: str
    """``lockstep`` or ``layer by layer``."""
    accuracy_before: float | None = None
    accuracy_after: float | None = None


@dataclass(frozen=True, slots=True)
class FixRecord:
    """One ``varshift fix``: what was chosen, what was written where, and what it brought."""

    checkpoint: CheckpointRecord
    output: str | None
    """``None`` where nothing was written."""
    sidecar: str | None
    """Where the old buffers are kept, for ``--revert``."""
    output_sha256: str | None
    changed_buffers: int
    changed_bytes: int
    repair: RepairRecord | None
    """``None`` where there was nothing to repair, or buffers were put back."""
    worst_before: float | None
    worst_layer_before: str
    worst_after: float | None
    above_before: int
    """Layers whose shift exceeded 1.25 before."""
    above_after: int
    measured: int
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()
    status: str = "written"
    """``written``, ``dry_run``, ``nothing_to_repair`` or ``reverted``."""
    method: str = "recalibrate"
    """What was asked for: ``auto``, ``recalibrate``, ``correct`` or ``revert``."""
    chosen: str | None = None
    """The repair that was made, or would be by a dry run: ``recalibrate`` or ``correct``."""
    reason: str | None = None
    """Why it was chosen, or why nothing is to be repaired."""
    holdout: str | None = None
    """What was drawn from ``--holdout``: ``heldout.npz  797 samples of x, labels y``."""


@dataclass(frozen=True, slots=True)
class Score:
    """A figure of the user's own before and after a repair."""

    name: str
    """``accuracy``, ``loss`` (cross-entropy, lower is better), or the name of ``--metric``."""
    data: str
    """What it was measured on: ``calib.npz``, ``heldout.npz``."""
    before: float
    after: float
    samples: int
    difference: Interval | None = None
    """95 % interval of after - before, from paired per-sample differences."""
    in_sample: bool = False
    """Whether the statistics were taken from these very samples: no figure of what is to come."""
