"""The only door for the user's files: checkpoints, code and data.

No other room opens a checkpoint, imports the user's code or writes a repaired file.

Loaded on first use: what needs no torch (the buffers of a safetensors file) shall not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from varshift_cli.loading.architecture import BuiltModel, build_model, open_model
    from varshift_cli.loading.batches import adapt_batches
    from varshift_cli.loading.containers import (
        Checkpoint,
        PatchRecord,
        StateDict,
        open_checkpoint,
        weights_file,
    )
    from varshift_cli.loading.data import LoadedData, load_data
    from varshift_cli.loading.functions import load_forward, load_metric, load_noise
    from varshift_cli.loading.importing import import_files_anew
    from varshift_cli.loading.reverting import Reverted, revert
    from varshift_cli.loading.shapes import likely_input
    from varshift_cli.loading.sidecar import (
        Provenance,
        Sidecar,
        check_sidecar_place,
        own_sidecar,
        sidecar_path,
        sidecar_restored_on_error,
        write_sidecar,
    )

_HOMES = {
    "BuiltModel": "architecture",
    "Checkpoint": "containers",
    "LoadedData": "data",
    "PatchRecord": "containers",
    "Provenance": "sidecar",
    "Reverted": "reverting",
    "Sidecar": "sidecar",
    "StateDict": "containers",
    "adapt_batches": "batches",
    "build_model": "architecture",
    "import_files_anew": "importing",
    "likely_input": "shapes",
    "check_sidecar_place": "sidecar",
    "load_data": "data",
    "load_forward": "functions",
    "load_metric": "functions",
    "load_noise": "functions",
    "open_checkpoint": "containers",
    "open_model": "architecture",
    "weights_file": "containers",
    "own_sidecar": "sidecar",
    "revert": "reverting",
    "sidecar_path": "sidecar",
    "sidecar_restored_on_error": "sidecar",
    "write_sidecar": "sidecar",
}

__all__ = [
    "BuiltModel",
    "Checkpoint",
    "LoadedData",
    "PatchRecord",
    "Provenance",
    "Reverted",
    "Sidecar",
    "StateDict",
    "adapt_batches",
    "build_model",
    "check_sidecar_place",
    "import_files_anew",
    "likely_input",
    "load_data",
    "load_forward",
    "load_metric",
    "load_noise",
    "open_checkpoint",
    "open_model",
    "own_sidecar",
    "revert",
    "sidecar_path",
    "sidecar_restored_on_error",
    "weights_file",
    "write_sidecar",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
