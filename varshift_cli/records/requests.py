"""What a command was asked, one field per option."""

from __future__ import annotations

from dataclasses import dataclass


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
    train_data: str | None = None
    """Data as in training, beside ``data``: tells other data from wrong buffers."""
    input: str | None = None
    label: str | None = None
    forward: str | None = None
    noise: tuple[str, ...] = ()
    """``file.py:Class`` of layers that are noise, beside those that are known."""
    metric: str | None = None
    batch_size: int = 64
    train_batch_size: int | None = None
    samples: int = 1024
    seed: int = 0
    device: str = "auto"
    memory: str | None = None
    channels: bool = False
    attribute: bool = True
    """Also pass with single dropouts, and say which one moves which layer."""


@dataclass(frozen=True, slots=True)
class FixRequest:
    """What ``varshift fix`` was asked: a scan, a method, and where to write."""

    scan: ScanRequest
    method: str = "recalibrate"
    """``recalibrate``, ``correct``, ``auto`` or ``revert``."""
    output: str | None = None
    """Default ``<stem>.fixed<suffix>`` beside the checkpoint."""
    overwrite: bool = False
    dry_run: bool = False
    force: bool = False
    include_frozen: bool = False
    holdout: str | None = None
    """Data of the same form as ``--data``, for accuracy before and after."""
    in_place: bool = False
    """Replace the checkpoint itself; the old buffers stay in the sidecar."""
