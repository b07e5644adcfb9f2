"""What a container says about a tensor before any of its bytes are read.

A checkpoint is a claim: this tensor has that shape, in that record, from that offset on. The claim
is checked against the record's real size before memory is set aside, since a damaged or hostile
file can claim anything.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch

from varshift_cli.errors import CheckpointError

MAX_DIMS = 64
MAX_EXPANDED_BYTES = 64 * 2**20
"""Tensors may repeat elements (stride 0), but not up to more than this beyond their storage."""

_DTYPE_NAMES = (
    "float64 float32 float16 bfloat16 complex64 complex128 complex32 int64 int32 int16 int8 uint8 "
    "uint16 uint32 uint64 bool double float half long int short chalf cfloat cdouble "
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
)
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in _DTYPE_NAMES.split() if hasattr(torch, name)
}
"""Names under ``torch.`` that mean an element type."""

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
"""Storage classes that a pickle names; quantized ones are left out on purpose."""


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """A run of bytes inside one record of a container."""

    record: str
    """Name of the record: a zip member, a safetensors entry, a legacy storage key."""
    dtype: torch.dtype
    start: int
    """First byte within the record; more than 0 only for views in legacy files."""
    nbytes: int
    """Bytes claimed; the record may hold more, never less."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor as claimed: elements of ``dtype`` at ``offset``, strided over one storage.

    ``offset`` and ``stride`` count elements. ``obstacle`` names what keeps it from being read
    (sparse, quantized, ...), ``None`` for plain tensors.
    """

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    obstacle: str | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> tuple[int, int]:
        """First byte and one past the last byte within the record; empty tensors span nothing."""
        start = self.storage.start + self.offset * self.dtype.itemsize
        if self.numel == 0:
            return start, start
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return start, start + (last + 1) * self.dtype.itemsize

    @property
    def overlaps_itself(self) -> bool:
        """Whether two elements share bytes, as after ``expand``."""
        reach = 0
        for step, n in sorted(zip(self.stride, self.shape, strict=True)):
            if n > 1 and step <= reach:
                return True
            reach += (n - 1) * step
        return False

    def check(self, name: str, record_size: int) -> None:
        """Compare the claim with the record that it points into.

        Raises:
            CheckpointError: If it cannot be true, or if we do not read this kind of tensor.
        """
        if self.obstacle is not None:
            raise CheckpointError(
                f"tensor {name!r} cannot be read: {self.obstacle}",
                hint="Save the model's plain state_dict() from a dense, CPU copy of the model.",
            )
        problem = self._contradiction(record_size)
        if problem is not None:
            raise CheckpointError(
                f"tensor {name!r} does not fit its record {self.storage.record!r}: {problem}",
                hint="The file is damaged or was made to mislead; fetch or save it again.",
            )

    def _contradiction(self, record_size: int) -> str | None:
        if len(self.shape) != len(self.stride) or len(self.shape) > MAX_DIMS:
            return f"{len(self.shape)} sizes and {len(self.stride)} strides"
        if any(not 0 <= n < 2**62 for n in (*self.shape, *self.stride, self.offset)):
            return "a size, stride or offset is negative or beyond 64 bits"
        start, end = self.span
        limit = min(record_size, self.storage.start + self.storage.nbytes)
        if end > limit and self.numel:
            return f"it claims bytes {start:,} to {end:,}, the record has {limit:,}"
        if self.numel * self.dtype.itemsize > limit + MAX_EXPANDED_BYTES:
            return f"{self.numel:,} elements claimed of {limit:,} stored bytes"
        return None

    def view_of(self, record: bytearray) -> torch.Tensor:
        """The tensor over the record's own bytes; call :meth:`check` first."""
        if sys.byteorder != "little":
            raise CheckpointError("checkpoints are little-endian, and this machine is not")
        if self.numel == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        count = min(self.storage.nbytes, len(record) - self.storage.start) // self.dtype.itemsize
        flat = torch.frombuffer(record, dtype=self.dtype, count=count, offset=self.storage.start)
        return flat.as_strided(self.shape, self.stride, self.offset)
