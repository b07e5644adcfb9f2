"""What a checkpoint's BatchNorm (BN) buffers tell by themselves; no model was run."""

from __future__ import annotations

from dataclasses import dataclass, field

from varshift_cli.records.findings import Finding
from varshift_cli.records.layers import Skipped
from varshift_cli.records.report import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One BN layer as stored."""

    name: str
    """As in the file; led by the state dict's key where the file holds several."""
    num_features: int
    updates: int | None
    """``num_batches_tracked``; ``None`` where the file does not hold it."""
    variance_low: float | None
    variance_median: float | None
    variance_high: float | None
    """Of ``running_var`` over channels; ``None`` if any channel is not finite."""
    mean_largest: float | None
    """Largest |``running_mean``| over channels; ``None`` if any channel is not finite."""
    dead_channels: int
    """Channels with ``running_var`` below 1e-7, a hundredth of the usual eps."""
    codes: tuple[str, ...] = ()
    """Of the findings that name this layer."""


@dataclass(frozen=True, slots=True)
class LintReport:
    """Everything ``varshift lint`` found."""

    varshift_version: str
    path: str
    container: str
    file_bytes: int
    bytes_read: int
    tensors: int
    """Tensors in the file, of which only those of BN layers were read."""
    layers: tuple[StoredLayer, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = field(default=())
    schema_version: int = SCHEMA_VERSION
