"""The only door for the user's files: checkpoints, code and data."""

from varshift_cli.loading.architecture import BuiltModel, build_model, open_model
from varshift_cli.loading.batches import adapt_batches
from varshift_cli.loading.containers import (
    Checkpoint,
    PatchRecord,
    StateDict,
    open_checkpoint,
)
from varshift_cli.loading.data import LoadedData, load_data
from varshift_cli.loading.functions import load_forward, load_metric

__all__ = [
    "BuiltModel",
    "Checkpoint",
    "LoadedData",
    "PatchRecord",
    "StateDict",
    "adapt_batches",
    "build_model",
    "load_data",
    "load_forward",
    "load_metric",
    "open_checkpoint",
    "open_model",
]
