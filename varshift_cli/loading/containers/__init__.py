"""Checkpoint files of every kind: each is read, and patched, without running what is in it.

Loaded on first use: what needs no torch (a safetensors header) shall not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from varshift_cli.loading.containers.checkpoint import Checkpoint, PatchRecord, StateDict
    from varshift_cli.loading.containers.folder import weights_file
    from varshift_cli.loading.containers.opening import open_checkpoint

_HOMES = {
    "Checkpoint": "checkpoint",
    "PatchRecord": "checkpoint",
    "StateDict": "checkpoint",
    "open_checkpoint": "opening",
    "weights_file": "folder",
}

__all__ = ["Checkpoint", "PatchRecord", "StateDict", "open_checkpoint", "weights_file"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
