"""Files that hold a whole pickled module, and the one place where pickles are allowed to run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers import selection
from varshift_cli.loading.containers.checkpoint import Checkpoint
from varshift_cli.loading.containers.pickles import Opaque
from varshift_cli.loading.containers.walking import children
from varshift_cli.loading.importing import users_code


class HoldsPickledModule(Checkpoint):
    """A checkpoint that may hold a module rather than a state dict.

    Its tensors are read like any others, without running anything; only :meth:`module` unpickles,
    and only if allowed.
    """

    allow_pickle: bool

    def container_kind(self, plain: str) -> str:
        """``module`` where the best there is is a pickled module, else ``plain``."""
        found = selection.candidates(self.root)
        return "module" if found and found[0].module else plain

    def module(self, key: str | None = None) -> nn.Module:
        """Unpickle the module, on CPU. This runs whatever the file says.

        Raises:
            UsageError: If the file holds a state dict.
            CheckpointError: If that was not allowed, or fails.
        """
        candidate, _ = self._select(key)
        if not candidate.module:
            return super().module(key)
        value = self._at(self.root, candidate.path)
        kind = value.origin if isinstance(value, Opaque) else None
        if not self.allow_pickle:
            raise CheckpointError(
                f"{self.path} holds a whole pickled module, not a state dict; loading it would "
                f"run code that the file names, first {kind}",
                hint="If you trust whoever made the file: --allow-pickle. Safer: name the "
                "architecture with --arch, then only its tensors are read.",
            )
        main = " Its class was defined in a script: use --arch instead." if _in_main(kind) else ""
        label = f"{self.path} ({kind})"
        data = bytes(self.source.read(0, self.source.size))
        folders = [Path.cwd(), self.path.resolve().parent]
        with users_code(label, CheckpointError, folders, doing=f"cannot be unpickled.{main}"):
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
            model = self._at(loaded, candidate.path)
        if not isinstance(model, nn.Module):
            raise CheckpointError(f"{label} unpickled to a {type(model).__name__}, not a module")
        return model

    @staticmethod
    def _at(value: Any, path: tuple[str, ...]) -> Any:
        """Follow a path through dicts, lists and attributes."""
        for part in path:
            if isinstance(value, Mapping):
                value = value[part]
            elif isinstance(value, list | tuple):
                value = value[int(part)]
            elif isinstance(value, Opaque):
                value = dict(children(value))[part]
            else:
                value = getattr(value, part)
        return value


def _in_main(kind: object) -> bool:
    return str(kind).startswith("__main__.")
