"""What ``varshift inspect`` sees of a model: no figure, no verdict."""

from __future__ import annotations

from dataclasses import dataclass

from varshift_cli.records.layers import DropoutLink, DropoutRecord, Skipped
from varshift_cli.records.report import CheckpointRecord


@dataclass(frozen=True, slots=True)
class InspectedLayer:
    """One call of one BN layer."""

    name: str
    kind: str
    num_features: int
    eps: float
    call: int
    """1 for the first call of this layer in a forward, 2 for the second, ..."""
    location: str | None
    """``file:line`` of the call, where it is known."""
    dropouts: tuple[DropoutLink, ...]
    """Dropouts that reach this layer with no other BN between."""
    upstream: tuple[str, ...]
    """BN layers whose output reaches this one with no other BN between."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The wiring of one small forward."""

    varshift_version: str
    checkpoint: CheckpointRecord
    data: str | None
    samples: int
    device: str
    layers: tuple[InspectedLayer, ...]
    """In execution order."""
    dropouts: tuple[DropoutRecord, ...]
    """In execution order."""
    order: tuple[str, ...]
    """Names of layers and dropouts together, in execution order."""
    skipped: tuple[Skipped, ...]
    """BN that ``scan`` will not measure."""
    unwritten: tuple[Skipped, ...]
    """BN that ``scan`` measures and ``fix`` will not write."""
    always_on: tuple[str, ...]
    """Dropouts that stay on in eval()."""
    notes: tuple[str, ...] = ()
