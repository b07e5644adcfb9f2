"""A checkpoint's tensors by name, as numpy arrays, each read only when it is asked for.

For commands that look at buffers and run no model. A safetensors file is read without torch, so
that the answer need not wait for its import; every other container goes through
:mod:`varshift_cli.loading.containers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from varshift_cli.errors import CheckpointError
from varshift_cli.interrupts import held_interrupts
from varshift_cli.loading.containers.folder import find_weights
from varshift_cli.loading.containers.safetensors_header import DTYPES, Entry, read_header
from varshift_cli.loading.containers.source import SourceFile

Array = NDArray[np.float64]

_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True, eq=False)
class TensorGroup:
    """One state dict of a file."""

    key: str
    """Dotted path inside the file; ``""`` for the file itself."""
    averaged: bool
    """Whether its name or its entries say that these weights are an average (EMA, SWA)."""
    shapes: Mapping[str, tuple[int, ...]]
    """Every tensor's shape by name, in the model's order where the file keeps one."""
    load: Callable[[str], Array]

    def read(self, name: str) -> Array:
        """One tensor in float64.

        Raises:
            CheckpointError: It is damaged, or of an element type that is not read.
        """
        return self.load(name)


@dataclass(frozen=True, slots=True, eq=False)
class TensorFile:
    """A checkpoint, open for looking at single tensors."""

    source: SourceFile
    container: str
    groups: tuple[TensorGroup, ...]
    """The likeliest model first."""
    notes: tuple[str, ...] = field(default=())

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def bytes_read(self) -> int:
        """Bytes asked of the file system so far."""
        return self.source.bytes_read


def open_tensors(path: str | Path, key: str | None = None) -> TensorFile:
    """Open a checkpoint of any kind; reads its directory, not its tensors.

    Args:
        path: A file, or a folder with a single weights file.
        key: Dotted path of the one state dict to look at; all that have BatchNorm buffers
            without it.

    Raises:
        CheckpointNotFoundError: There is no file.
        CheckpointError: It is damaged, of a kind that is not read, or holds nothing at ``key``.
    """
    place = Path(path)
    source = SourceFile(find_weights(place) if place.is_dir() else place)
    if _is_safetensors(source):
        return _safetensors(source, key)
    return _with_torch(source.path, key)


def _is_safetensors(source: SourceFile) -> bool:
    head = bytes(source.read(0, min(9, source.size)))
    if head.startswith((b"PK", b"\x80")):
        return False
    return head[8:9] == b"{" or source.path.suffix == ".safetensors"


def _safetensors(source: SourceFile, key: str | None) -> TensorFile:
    if key:
        raise CheckpointError(
            f"{source.path} has nothing at --key {key!r}: a safetensors file holds tensors only, "
            "no dicts",
            hint="Leave --key out.",
        )
    entries = read_header(source)
    # The file sorts by size and name; names sorted with their numbers come near the model's order.
    names = sorted(entries, key=_natural)
    shapes = {name: entries[name].shape for name in names}
    averaged = any(name.endswith("n_averaged") for name in names)
    group = TensorGroup("", averaged, shapes, lambda name: _read_entry(source, name, entries[name]))
    return TensorFile(source, "safetensors", (group,))


def _read_entry(source: SourceFile, name: str, entry: Entry) -> Array:
    if entry.dtype == "BF16":
        # The upper half of a float32.
        halves = np.frombuffer(source.read(entry.offset, entry.size), "<u2")
        values: Any = (halves.astype("<u4") << 16).view("<f4")
    else:
        usual = DTYPES[entry.dtype][0] if entry.dtype in DTYPES else ""
        if not usual or usual.startswith(("float8", "complex")):
            raise CheckpointError(
                f"tensor {name!r} cannot be read: its element type {entry.dtype!r:.40} is not read"
            )
        values = np.frombuffer(
            source.read(entry.offset, entry.size), np.dtype(usual).newbyteorder("<")
        )
    return np.asarray(values, np.float64).reshape(entry.shape)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``layer.10`` behind ``layer.9``."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 10 else (1, 0, part)
        for part in _NUMBERS.split(name)
        if part
    ]


def _with_torch(path: Path, key: str | None) -> TensorFile:
    # Imported here: it imports torch. Ctrl-C raised inside torch's C++ initialisation would abort
    # the process, with a dump of the stack; pressed again it comes at once.
    with held_interrupts(most=1):
        from varshift_cli.loading.containers import open_checkpoint, selection  # noqa: PLC0415

    checkpoint = open_checkpoint(path)
    if key is None:
        best, _ = selection.choose(checkpoint.root, str(path))
        found = [best]
        found += [
            each
            for each in selection.candidates(checkpoint.root)
            if each.path != best.path and each.has_statistics
        ]
    else:
        found = [selection.find(checkpoint.root, key, str(path))]
    groups = tuple(
        TensorGroup(
            each.key,
            each.is_ema or "n_averaged" in each.tensors,
            {name: ref.shape for name, ref in each.tensors.items()},
            lambda name, each=each: (  # type: ignore[misc]
                checkpoint.read_tensor(name, each.tensors[name]).double().numpy()
            ),
        )
        for each in found
    )
    return TensorFile(checkpoint.source, checkpoint.container, groups)
