"""safetensors: a JSON header and raw bytes. The header is checked before anything is believed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.checkpoint import Checkpoint, Spot
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.tensors import MAX_DIMS, StorageRef, TensorRef

_PREFIX = 8
"""Bytes of the header's own size."""
_MAX_HEADER = 100_000_000
"""The format's own limit, in bytes."""

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "U16": "uint16", "U32": "uint32",
    "U64": "uint64", "BOOL": "bool", "C64": "complex64", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # fmt: skip


class Safetensors(Checkpoint):
    """One ``.safetensors`` file."""

    container = "safetensors"

    def __init__(self, source: SourceFile) -> None:
        """Read and check the header.

        Raises:
            CheckpointError: If it contradicts itself or the file.
        """
        super().__init__(source)
        header = self._header()
        refs: dict[str, TensorRef] = {}
        self._spots: dict[str, Spot] = {}
        for name, entry in header.items():
            if name != "__metadata__":
                refs[name], self._spots[name] = self._entry(name, entry)
        self._refuse_overlaps()
        self._refs = refs

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

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is a damaged or truncated safetensors file: {why}",
            hint="Fetch or save the file again.",
        )

    def _header(self) -> dict[str, Any]:
        size = 0
        if self.source.size >= _PREFIX:
            size = int.from_bytes(self.source.read(0, _PREFIX), "little")
        if not 0 < size <= min(_MAX_HEADER, self.source.size - _PREFIX):
            raise self._damaged(
                f"its header claims {size:,} bytes, the file has {self.source.size:,}"
            )
        self._data_start = _PREFIX + size
        text = bytes(self.source.read(_PREFIX, size))
        try:
            header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as problem:
            raise self._damaged(f"its header is not proper JSON ({problem!s:.120})") from problem
        if not isinstance(header, dict):
            raise self._damaged("its header is not a JSON object")
        return header

    def _entry(self, name: str, entry: Any) -> tuple[TensorRef, Spot]:
        try:
            dtype_name, shape, (begin, end) = (
                entry["dtype"], entry["shape"], entry["data_offsets"]
            )  # fmt: skip
        except (TypeError, KeyError, ValueError) as problem:
            raise self._damaged(f"the entry of {name!r:.100} is incomplete") from problem
        numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
        if len(numbers) > MAX_DIMS + 2 or not all(
            type(n) is int and 0 <= n < 2**62 for n in numbers
        ):
            raise self._damaged(f"the entry of {name!r:.100} has impossible sizes")
        dtype = _dtype(dtype_name)
        if end > self.source.size - self._data_start or begin > end:
            raise self._damaged(f"{name!r:.100} lies outside the file")
        if dtype is not None and math.prod(shape) * dtype.itemsize != end - begin:
            raise self._damaged(f"{name!r:.100} has shape {shape} but {end - begin:,} bytes")
        ref = TensorRef(
            storage=StorageRef(name, dtype or torch.uint8, 0, end - begin),
            dtype=dtype or torch.uint8,
            offset=0,
            shape=tuple(shape),
            stride=contiguous_stride(shape),
            obstacle=None if dtype else f"its element type {dtype_name!r:.40} is not read",
        )
        return ref, Spot(self._data_start + begin, end - begin)

    def _refuse_overlaps(self) -> None:
        spots = sorted(
            (spot.offset, spot.offset + spot.size, name)
            for name, spot in self._spots.items()
            if spot.size
        )
        for (_, end, name), (start, _, other) in pairwise(spots):
            if start < end:
                raise self._damaged(f"{name!r:.100} and {other!r:.100} overlap")


def _dtype(name: Any) -> torch.dtype | None:
    known = _DTYPES.get(name) if isinstance(name, str) else None
    return getattr(torch, known, None) if known else None


def contiguous_stride(shape: list[int] | tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a row-major tensor."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refusing a name given twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found
