"""Checkpoint files of every kind: each is read, and patched, without running what is in it."""

from varshift_cli.loading.containers.checkpoint import Checkpoint, PatchRecord, StateDict
from varshift_cli.loading.containers.opening import open_checkpoint

__all__ = ["Checkpoint", "PatchRecord", "StateDict", "open_checkpoint"]
