"""Two checkpoints, or two reports, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from varshift_cli.records.findings import Finding
from varshift_cli.records.layers import Interval
from varshift_cli.records.levels import Level
from varshift_cli.records.report import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class StatisticsChange:
    """The stored statistics of one BatchNorm (BN) layer in two files, A and B."""

    name: str
    """As in A."""
    num_features: int
    variance_ratio: float | None
    """Geometric mean over live channels of (var_B + eps)/(var_A + eps), eps 1e-5."""
    variance_spread: float | None
    """exp of the standard deviation over live channels of its log; 1 where all moved alike."""
    mean_shift: float | None
    """Root mean square over channels of (mean_B - mean_A)/sqrt(var_A + eps)."""
    same_statistics: bool
    """To the last bit."""
    same_affine: bool | None
    """Whether weight and bias agree to the last bit; ``None`` where a file lacks them."""
    permuted: bool
    """Whether B holds A's values in another order of channels."""


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """BN statistics of two checkpoints."""

    varshift_version: str
    before: str
    after: str
    layers: tuple[StatisticsChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    same_weights: int
    """Tensors beside the BN layers' own that are equal in both files."""
    other_weights: int
    """Such tensors that differ, in values or in shape."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = field(default=())
    schema_version: int = SCHEMA_VERSION


class Change(StrEnum):
    """How a layer's shift moved from one report to another."""

    WORSE = "worse"
    """The interval after lies above the interval before."""
    BETTER = "better"
    """It lies below."""
    SAME = "same"
    """The intervals overlap: no change beyond noise."""
    UNKNOWN = "unknown"
    """A shift or an interval is missing."""


@dataclass(frozen=True, slots=True)
class ShiftChange:
    """One BN layer in two reports."""

    name: str
    before: float | None
    before_interval: Interval | None
    after: float | None
    after_interval: Interval | None
    change: Change
    level_before: Level | None
    level_after: Level | None
    cause_before: str | None
    cause_after: str | None


@dataclass(frozen=True, slots=True)
class ReportDiff:
    """Two reports, layer by layer; the layers that got worse first, then by size of change."""

    varshift_version: str
    before: str
    after: str
    layers: tuple[ShiftChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    """What makes the two hard to compare: other data, seeds, samples."""
    schema_version: int = SCHEMA_VERSION
