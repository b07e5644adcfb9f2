"""Compares a patched copy with its original: byte for byte, and tensor for tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from varshift_cli.errors import WriteError
from varshift_cli.loading.containers.opening import open_checkpoint
from varshift_cli.loading.containers.source import CHUNK
from varshift_cli.loading.containers.tensors import TensorRef

if TYPE_CHECKING:
    from varshift_cli.loading.containers.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes to put at an offset of the file."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + len(self.data)


def compare_bytes(checkpoint: Checkpoint, temporary: Path, edits: Sequence[Edit]) -> int:
    """How many bytes differ; all of them must lie inside the edits.

    Raises:
        WriteError: If any other byte differs.
    """
    changed = 0
    position = 0
    with checkpoint.source.open() as original, temporary.open("rb") as copy:
        while True:
            one, two = original.read(CHUNK), copy.read(CHUNK)
            if len(one) != len(two):
                raise WriteError("the written copy has another length than the original")
            if not one:
                return changed
            if one != two:
                differs = np.frombuffer(one, np.uint8) != np.frombuffer(two, np.uint8)
                changed += int(differs.sum())
                for edit in edits:
                    differs[max(edit.offset - position, 0) : max(edit.end - position, 0)] = False
                if differs.any():
                    raise WriteError("the written copy differs outside the patched tensors")
            position += len(one)


def compare_tensors(
    checkpoint: Checkpoint,
    temporary: Path,
    refs: Mapping[str, TensorRef],
    values: Mapping[str, torch.Tensor],
) -> None:
    """Read the copy like any checkpoint and compare every tensor of the patched state dict.

    Raises:
        WriteError: If one is not what it should be.
    """
    written = open_checkpoint(temporary)
    aliased = {_place(refs[name]) for name in values}
    for name, ref in refs.items():
        if ref.obstacle is not None:
            continue
        expected = values.get(name)
        if expected is None:
            if _place(ref) in aliased:
                continue
            expected = checkpoint.read_tensor(name, ref)
        if not same_bits(written.read_tensor(name, ref), expected):
            raise WriteError(f"{name!r} reads back with other values than were written")


def _place(ref: TensorRef) -> tuple[str, int, int]:
    return (ref.storage.record, *ref.span)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bitwise equality, so that NaN equals itself and -0 is not 0."""
    first = one.contiguous().reshape(-1).view(torch.uint8)
    second = other.contiguous().reshape(-1).view(torch.uint8)
    return torch.equal(first, second)
