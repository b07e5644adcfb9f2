"""Exported programs (``torch.export.save``, ``.pt2``): a graph in JSON and raw weights in a zip."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.exported_guard import refuse_hidden_code
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.tensors import DTYPES, StorageRef, TensorRef
from varshift_cli.loading.containers.torch_zip import ZippedCheckpoint
from varshift_cli.loading.containers.zip_directory import ZipDirectory

_WEIGHTS = "data/weights/"
_CONFIG = "data/weights/model_weights_config.json"
# Numbers of torch._export.serde.schema.ScalarType, part of the file format.
_SCALAR_TYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 34: "uint32", 35: "uint64",
}  # fmt: skip


class ExportedProgramFile(ZippedCheckpoint):
    """A ``.pt2`` archive as torch 2.8 and later write it."""

    container = "exported"

    def __init__(
        self, source: SourceFile, directory: ZipDirectory, folder: str, *, allow_pickle: bool
    ) -> None:
        """Read the list of weights.

        Raises:
            CheckpointError: If it is damaged or in an older layout.
        """
        super().__init__(source, directory, folder)
        self.allow_pickle = allow_pickle
        if f"{folder}{_CONFIG}" not in directory.names:
            raise CheckpointError(
                f"{source.path} is an exported program in a layout that is not read",
                hint="Load it with torch.export.load and save it with torch 2.8 or later.",
            )
        config = self._json(f"{folder}{_CONFIG}")
        try:
            entries = dict(config["config"])
            self._refs = {str(name): self._ref(entry) for name, entry in entries.items()}
        except (TypeError, KeyError, ValueError, AttributeError) as problem:
            raise CheckpointError(
                f"{source.path}: its list of weights is damaged ({problem!r:.120})",
                hint="Fetch or save the file again.",
            ) from problem

    @property
    def root(self) -> Mapping[str, TensorRef]:
        """The weights by name."""
        return self._refs

    def _json(self, name: str) -> Any:
        try:
            return json.loads(bytes(self.directory.read(name)).decode("utf-8"))
        except (ValueError, RecursionError) as problem:
            raise CheckpointError(
                f"{self.path}: {name} is not proper JSON ({problem!s:.120})",
                hint="Fetch or save the file again.",
            ) from problem

    def _ref(self, entry: Mapping[str, Any]) -> TensorRef:
        record = f"{self.folder}{_WEIGHTS}{entry['path_name']}"
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            nothing = StorageRef(record, torch.uint8, 0, 0)
            return TensorRef(nothing, torch.uint8, 0, (0,), (1,), "it is pickled in the archive")
        name = _SCALAR_TYPES.get(meta["dtype"], "")
        dtype = DTYPES.get(name)
        return TensorRef(
            storage=StorageRef(record, dtype or torch.uint8, 0, 2**62),
            dtype=dtype or torch.uint8,
            offset=_integer(meta["storage_offset"]),
            shape=tuple(_integer(size) for size in meta["sizes"]),
            stride=tuple(_integer(step) for step in meta["strides"]),
            obstacle=None if dtype else f"its element type {meta['dtype']!r:.40} is not read",
        )

    def module(self, key: str | None = None) -> nn.Module:
        """Load the program as a module, on CPU.

        Raises:
            CheckpointError: If torch cannot load it, or loading would run code from the file.
        """
        if not self.allow_pickle:
            refuse_hidden_code(self.path, self.directory, self.folder)
        data = bytes(self.source.read(0, self.source.size))
        try:
            with warnings.catch_warnings(), _quiet():
                warnings.simplefilter("ignore")
                return torch.export.load(io.BytesIO(data)).module()
        except Exception as problem:
            # Whatever torch makes of a foreign or damaged graph: it raises every kind of error.
            raise CheckpointError(
                f"{self.path} is an exported program that torch {torch.__version__} cannot load: "
                f"{type(problem).__name__} {' '.join(str(problem).split())[:300]}",
                hint="Export it again with this version of torch.",
            ) from problem


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what the reader of a program makes of its symbols."""
    logger = logging.getLogger("torch._export.serde.serialize")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _integer(value: Mapping[str, Any]) -> int:
    """``{"as_int": 3}``; weights have no symbolic sizes."""
    number = value["as_int"]
    if type(number) is not int:
        raise TypeError("a size is not an integer")
    return number
