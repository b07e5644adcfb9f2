"""safetensors: a JSON header and raw bytes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from varshift_cli.loading.containers.checkpoint import Checkpoint, Spot
from varshift_cli.loading.containers.safetensors_header import DTYPES, Entry, read_header
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.tensors import StorageRef, TensorRef


class Safetensors(Checkpoint):
    """One ``.safetensors`` file."""

    container = "safetensors"

    def __init__(self, source: SourceFile) -> None:
        """Read and check the header.

        Raises:
            CheckpointError: If it contradicts itself or the file.
        """
        super().__init__(source)
        entries = read_header(source)
        self._refs = {name: _ref(name, entry) for name, entry in entries.items()}
        self._spots = {name: Spot(entry.offset, entry.size) for name, entry in entries.items()}

    @property
    def root(self) -> Mapping[str, TensorRef]:
        """The tensors by name."""
        return self._refs

    def record_size(self, record: str) -> int:
        """Bytes of one tensor."""
        return self._spots[record].size

    def read_record(self, record: str) -> bytearray:
        """The bytes of one tensor; the format has no checksums."""
        spot = self._spots[record]
        return self.source.read(spot.offset, spot.size)

    def spot(self, record: str) -> Spot:
        """Where one tensor lies."""
        return self._spots[record]


def _ref(name: str, entry: Entry) -> TensorRef:
    known = DTYPES.get(entry.dtype)
    dtype: torch.dtype | None = getattr(torch, known[0], None) if known else None
    return TensorRef(
        storage=StorageRef(name, dtype or torch.uint8, 0, entry.size),
        dtype=dtype or torch.uint8,
        offset=0,
        shape=entry.shape,
        stride=contiguous_stride(entry.shape),
        obstacle=None if dtype else f"its element type {entry.dtype!r:.40} is not read",
    )


def contiguous_stride(shape: list[int] | tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a row-major tensor."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
