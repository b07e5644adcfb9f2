"""TorchScript archives (``torch.jit.save``): code and tensors in one zip.

The code is TorchScript's own language: it cannot import Python, but it can write a file
(``torch.save``) or map one (``from_file``). An archive that does so is refused unless pickles are
allowed too.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import torch
from torch import nn

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.pickles import read_pickle
from varshift_cli.loading.containers.rebuilders import REBUILDERS, storage_ref
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.torch_zip import ZippedCheckpoint
from varshift_cli.loading.containers.zip_directory import ZipDirectory

_TOUCHES_FILES = re.compile(rb"\b(torch|aten)\s*\.\s*(save|from_file)\b")


class ScriptArchive(ZippedCheckpoint):
    """A scripted or traced model."""

    container = "torchscript"

    def __init__(
        self, source: SourceFile, directory: ZipDirectory, folder: str, *, allow_pickle: bool
    ) -> None:
        """Read ``data.pkl``: the objects' attributes, as data."""
        super().__init__(source, directory, folder)
        self.allow_pickle = allow_pickle
        self._root = read_pickle(
            io.BytesIO(directory.read(f"{folder}data.pkl")),
            what=f"{folder}data.pkl of {source.path}",
            rebuilders=REBUILDERS,
            persistent=lambda pid: storage_ref(pid, prefix=f"{folder}data/"),
        )

    @property
    def root(self) -> Any:
        """The scripted module's attributes."""
        return self._root

    def module(self, key: str | None = None) -> nn.Module:
        """Load the model, on CPU.

        Raises:
            CheckpointError: If torch cannot load it, or its code would touch files.
        """
        if not self.allow_pickle:
            self._refuse_file_access()
        data = bytes(self.source.read(0, self.source.size))
        try:
            with warnings.catch_warnings():
                # torch deprecates TorchScript with a warning at every load.
                warnings.simplefilter("ignore")
                loaded: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as problem:
            # Whatever torch makes of a foreign or damaged archive: it raises every kind of error.
            raise CheckpointError(
                f"{self.path} is a TorchScript archive that torch {torch.__version__} cannot "
                f"load: {' '.join(str(problem).split())[:300]}",
                hint="Save it again with this version of torch, or give a state dict and --arch.",
            ) from problem
        return loaded

    def _refuse_file_access(self) -> None:
        prefix = f"{self.folder}code/"
        for name in self.directory.names:
            if name.startswith(prefix) and name.endswith(".py"):
                found = _TOUCHES_FILES.search(bytes(self.directory.read(name)))
                if found:
                    call = found.group().decode("ascii", "replace")
                    raise CheckpointError(
                        f"{self.path}: its code in {name} reads or writes files ({call})",
                        hint="If you trust whoever made the file: --allow-pickle.",
                    )
