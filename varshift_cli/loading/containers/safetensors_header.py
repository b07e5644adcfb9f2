"""The header of a safetensors file, checked before anything in it is believed; needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.source import SourceFile

_PREFIX = 8
"""Bytes of the header's own size."""
_MAX_HEADER = 100_000_000
"""The format's own limit, in bytes."""
_MAX_DIMS = 64

DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U8": ("uint8", 1), "U16": ("uint16", 2), "U32": ("uint32", 4), "U64": ("uint64", 8),
    "BOOL": ("bool", 1), "C64": ("complex64", 8), "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}  # fmt: skip
"""The format's name of an element type -> its usual name, and its bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as the header claims it, checked against the file."""

    dtype: str
    """As in the file; it may be unknown to :data:`DTYPES`."""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte, from the start of the file."""
    size: int
    """Bytes."""


def read_header(source: SourceFile) -> dict[str, Entry]:
    """Every tensor by name, in the header's order.

    Raises:
        CheckpointError: If the header contradicts itself or the file.
    """
    return _Header(source).entries()


class _Header:
    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._start = _PREFIX

    def entries(self) -> dict[str, Entry]:
        found = {
            name: self._entry(name, entry)
            for name, entry in self._json().items()
            if name != "__metadata__"
        }
        self._refuse_overlaps(found)
        return found

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self._source.path} is a damaged or truncated safetensors file: {why}",
            hint="Fetch or save the file again.",
        )

    def _json(self) -> dict[str, Any]:
        size = 0
        if self._source.size >= _PREFIX:
            size = int.from_bytes(self._source.read(0, _PREFIX), "little")
        if not 0 < size <= min(_MAX_HEADER, self._source.size - _PREFIX):
            raise self._damaged(
                f"its header claims {size:,} bytes, the file has {self._source.size:,}"
            )
        self._start = _PREFIX + size
        text = bytes(self._source.read(_PREFIX, size))
        try:
            header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as problem:
            raise self._damaged(f"its header is not proper JSON ({problem!s:.120})") from problem
        if not isinstance(header, dict):
            raise self._damaged("its header is not a JSON object")
        return header

    def _entry(self, name: str, entry: Any) -> Entry:
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as problem:
            raise self._damaged(f"the entry of {name!r:.100} is incomplete") from problem
        numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
        if len(numbers) > _MAX_DIMS + 2 or not all(
            type(n) is int and 0 <= n < 2**62 for n in numbers
        ):
            raise self._damaged(f"the entry of {name!r:.100} has impossible sizes")
        if end > self._source.size - self._start or begin > end:
            raise self._damaged(f"{name!r:.100} lies outside the file")
        known = DTYPES.get(dtype) if isinstance(dtype, str) else None
        if known is not None and math.prod(shape) * known[1] != end - begin:
            raise self._damaged(f"{name!r:.100} has shape {shape} but {end - begin:,} bytes")
        return Entry(str(dtype), tuple(shape), self._start + begin, end - begin)

    def _refuse_overlaps(self, entries: Mapping[str, Entry]) -> None:
        spots = sorted(
            (each.offset, each.offset + each.size, name)
            for name, each in entries.items()
            if each.size
        )
        for (_, end, name), (start, _, other) in pairwise(spots):
            if start < end:
                raise self._damaged(f"{name!r:.100} and {other!r:.100} overlap")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refusing a name given twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found
