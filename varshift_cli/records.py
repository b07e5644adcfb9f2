"""The facts that travel between the rooms: frozen dataclasses, no torch, no numpy.

Field names are the keys of the JSON report (``schema_version`` 1). Letters used throughout:
``R`` running buffer, ``T`` train regime (dropout on), ``C`` clean regime (dropout off), ``E`` eval
regime (dropout off, running buffers). Variances are unbiased (ddof 1) over all values of a
channel. A ratio is always taken with ``+eps`` on both sides, as BatchNorm (BN) divides by
``sqrt(var + eps)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

SCHEMA_VERSION = 1


class Level(StrEnum):
    """How bad a layer's ``shift`` is; the bounds are :data:`LEVEL_BOUNDS`."""

    FINE = "fine"
    MILD = "mild"
    STRONG = "strong"
    SEVERE = "severe"

    @classmethod
    def of(cls, shift: float) -> Level:
        """The level of a shift ratio >= 1."""
        for level, bound in LEVEL_BOUNDS.items():
            if shift < bound:
                return level
        return cls.SEVERE


LEVEL_BOUNDS: Mapping[Level, float] = {Level.FINE: 1.05, Level.MILD: 1.25, Level.STRONG: 2.0}
"""Exclusive upper bounds of the levels below ``severe``."""


class Describe(StrEnum):
    """What the running buffers describe: the net with dropout on, off, or undecided."""

    TRAIN = "train"
    CLEAN = "clean"
    UNKNOWN = "unknown"


class Case(StrEnum):
    """How a dropout reaches a BN: straight (``a``) or through weights (``b``), Li et al. sec. 3."""

    STRAIGHT = "a"
    THROUGH_WEIGHTS = "b"


class FindingLevel(StrEnum):
    """How loud a finding is."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Status(StrEnum):
    """The gate's answer."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_GATED = "not_gated"


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, ``low <= high``, in the unit of the figure beside it."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """Where the weights came from; all ``None`` for a model that was already in memory."""

    path: str | None = None
    sha256: str | None = None
    container: str | None = None
    """``zip``, ``safetensors``, ... as named by :mod:`varshift_cli.loading.containers`."""
    key: str | None = None
    """Dotted path of the state dict inside the file (``""``: the file itself)."""
    arch: str | None = None
    """The call that built the model, as it was run: ``model.py:build(p=0.5)``."""


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """What was measured with."""

    data: str | None
    samples: int
    batch_size: int | None
    """Samples per batch; ``None`` when the loader's own batches differ in size."""
    batches: int
    groups: int
    """Number of equal groups of samples behind every interval."""
    windows: int
    """1 when statistics are exact in one pass; more when memory forced windows."""
    seed: int
    device: str
    dtype: str
    torch_version: str
    method: str = "lockstep"
    """``lockstep``, or ``layer by layer`` for a forward whose control flow depends on the data."""


@dataclass(frozen=True, slots=True)
class BuffersRecord:
    """Regression of ln R/C on ln T/C within layers: 1 gathered with dropout on, 0 without."""

    describe: Describe = Describe.UNKNOWN
    slope: float | None = None
    slope_se: float | None = None


@dataclass(frozen=True, slots=True)
class Factors:
    """Geometric means over live channels; their product is ``signed``."""

    stale: float | None
    """T/R (or T_batch/R where ``batch`` is split off)."""
    batch: float | None
    """T/T_batch; ``None`` without ``--train-batch-size``."""
    dropout: float | None
    """C/T; exactly 1 in a model without dropout."""
    inherited: float | None
    """E/C."""


@dataclass(frozen=True, slots=True)
class FactorIntervals:
    """Jackknife intervals of :class:`Factors`."""

    stale: Interval | None
    batch: Interval | None
    dropout: Interval | None
    inherited: Interval | None


@dataclass(frozen=True, slots=True)
class DropoutLink:
    """A dropout that reaches a layer, and how."""

    name: str
    case: Case


@dataclass(frozen=True, slots=True)
class AttributionShare:
    """How much of ln(C/T) one dropout alone brings about."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """Per-channel arrays of shape (C,), reported on request only."""

    running_var: tuple[float, ...]
    train_var: tuple[float, ...]
    clean_var: tuple[float, ...]
    eval_var: tuple[float, ...]
    running_mean: tuple[float, ...]
    train_mean: tuple[float, ...]
    clean_mean: tuple[float, ...]
    eval_mean: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One call of one BN layer; layers are in execution order."""

    name: str
    kind: str
    num_features: int
    eps: float
    call: int
    """1 for the first call of this layer in a forward, 2 for the second, ..."""
    shift: float | None
    """exp of the bias-corrected mean over live channels of |ln((E+eps)/(R+eps))|; >= 1."""
    shift_interval: Interval | None
    signed: float | None
    """Geometric mean over live channels of (E+eps)/(R+eps) = product of the factors."""
    signed_interval: Interval | None
    paper_ratio: float | None
    """max(mean E / mean R, mean R / mean E), the ratio of channel means of Li et al., Fig. 4."""
    median_ratio: float | None
    """Median over live channels of (E+eps)/(R+eps)."""
    worst_channel: int | None
    worst_ratio: float | None
    """(E+eps)/(R+eps) of the live channel farthest from 1, and its index."""
    mean_shift: float | None
    """Root mean square over channels of (mean_E - running_mean)/sqrt(R+eps)."""
    dead_channels: int
    """Channels with max(R, E) < 0.01 eps; left out of the means."""
    level: Level | None
    cause: str | None
    """``stale``, ``batch``, ``dropout``, ``inherited``, or two that cancel: ``stale x dropout``."""
    factors: Factors
    factor_intervals: FactorIntervals
    dropouts: tuple[DropoutLink, ...] = ()
    """Dropouts that reach this layer with no other BN between."""
    attribution: tuple[AttributionShare, ...] | None = None
    attribution_residual: float | None = None
    location: str | None = None
    """``file:line`` of the call, where it is known."""
    upstream: tuple[str, ...] = ()
    """BN layers whose output reaches this one with no other BN between."""
    channels: ChannelFigures | None = None


@dataclass(frozen=True, slots=True)
class DropoutRecord:
    """One noise site in the forward, in execution order."""

    name: str
    kind: str
    """``dropout``, ``feature_dropout``, ``alpha_dropout``, ``feature_alpha_dropout``, ..."""
    p: float
    """DROP probability."""
    location: str | None
    """``file:line`` of the call, where it is known."""
    reaches: tuple[str, ...]
    """Names of the BN layers it reaches with no other BN between."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A BN layer that was not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause found, with its evidence in numbers."""

    code: str
    level: FindingLevel
    layers: tuple[str, ...]
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    """What else would look the same, and which measurement would decide."""


@dataclass(frozen=True, slots=True)
class RegimeScores:
    """One figure as deployed, after recalibration, and with dropout on (the T pass)."""

    eval: float | None
    recalibrated: float | None
    train: float | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What recalibration changes in the model's output, on the calibration data."""

    changed_predictions: float | None
    """Share of samples whose argmax changes, 0 to 1; ``None`` unless outputs are 2-D float."""
    kl: float | None
    """Mean KL divergence, in nats, of today's softmax from the recalibrated one."""
    relative_l2: float | None
    """||recalibrated - today|| / ||recalibrated||, over all outputs."""
    accuracy: RegimeScores | None
    loss: RegimeScores | None
    """Cross-entropy in nats."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer and the layer that decides it."""

    status: Status
    threshold: float | None
    worst_layer: str | None
    worst_shift: float | None


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to do about a finding."""

    title: str
    how: str
    """A command, or the edit to make."""
    needs_training: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Everything ``varshift scan`` found; every output format is a function of this."""

    varshift_version: str
    checkpoint: CheckpointRecord
    calibration: CalibrationRecord
    buffers: BuffersRecord
    layers: tuple[LayerRecord, ...]
    dropouts: tuple[DropoutRecord, ...]
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]
    remedies: Mapping[str, tuple[Remedy, ...]]
    effect: Effect | None
    verdict: Verdict
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Dotted JSON path of a figure that is ``null`` -> the reason why."""
    schema_version: int = SCHEMA_VERSION


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


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What ``varshift scan`` was asked; one field per option, defaults as on the command line."""

    model: str
    arch: str | None = None
    arch_args: tuple[str, ...] = ()
    """``name=value`` as typed: JSON, else a string; ``name=@file.yaml`` reads a file."""
    key: str | None = None
    allow_pickle: bool = False
    data: str | None = None
    data_args: tuple[str, ...] = ()
    input: str | None = None
    label: str | None = None
    forward: str | None = None
    metric: str | None = None
    batch_size: int = 64
    train_batch_size: int | None = None
    samples: int = 1024
    seed: int = 0
    device: str = "auto"
    memory: str | None = None
    channels: bool = False


@dataclass(frozen=True, slots=True)
class FixRequest:
    """What ``varshift fix`` was asked: a scan, a method, and where to write."""

    scan: ScanRequest
    method: str = "recalibrate"
    output: str | None = None
    """Default ``<stem>.fixed<suffix>`` beside the checkpoint."""
    overwrite: bool = False
    dry_run: bool = False
    force: bool = False
    include_frozen: bool = False
    holdout: str | None = None
    """Data of the same form as ``--data``, for accuracy before and after."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One batch as the model is called with it: ``model(*args, **kwargs)``.

    ``args`` and ``kwargs`` hold tensors; ``labels`` is a tensor of shape (size, ...) or ``None``.
    ``size`` is the number of samples: the length of the first tensor.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Any | None
    size: int
    raw: Any = None
    """The batch as the loader gave it, for a ``--forward`` function."""


class Progress(Protocol):
    """How a long computation tells of itself; the rooms never print."""

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` equal steps begins."""

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""

    def finish(self) -> None:
        """The stage is over, by success or by error."""


class SilentProgress:
    """The progress of a caller who does not care."""

    def start(self, stage: str, total: int) -> None:
        """Ignore."""

    def advance(self, steps: int = 1) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""


def worst_layer(layers: Sequence[LayerRecord]) -> LayerRecord | None:
    """The measured layer with the largest ``shift``; the first one on a tie."""
    measured = [layer for layer in layers if layer.shift is not None]
    return max(measured, key=lambda layer: layer.shift or 0.0, default=None)
