"""Writes a checkpoint by patching: a copy in which only the named tensors' bytes differ.

Nothing is serialised again, so whatever else the file holds (optimizer, arguments, classes we do
not know) stays as it was. The copy is compared with the original, byte for byte and tensor for
tensor, before it takes its place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from varshift_cli.errors import CheckpointError, WriteError
from varshift_cli.loading.containers.checkpoint import PatchRecord
from varshift_cli.loading.containers.comparing import (
    Edit,
    compare_bytes,
    compare_tensors,
    same_bits,
)
from varshift_cli.loading.containers.replacing import publish, replace_original
from varshift_cli.loading.containers.selection import Candidate
from varshift_cli.loading.containers.source import CHUNK
from varshift_cli.loading.containers.temporary import temporary_beside
from varshift_cli.loading.containers.tensors import TensorRef
from varshift_cli.loading.containers.walking import all_tensors

if TYPE_CHECKING:
    from varshift_cli.loading.containers.checkpoint import Checkpoint


def write_patched(
    checkpoint: Checkpoint,
    chosen: Candidate,
    buffers: Mapping[str, torch.Tensor],
    output: Path,
    *,
    overwrite: bool,
    in_place: bool = False,
    exact: bool = False,
    before_publishing: Callable[[str], None] | None = None,
) -> PatchRecord:
    """Write, verify, and only then put into place. See :meth:`Checkpoint.patch`."""
    refs = chosen.tensors
    if not in_place:
        _check_output(checkpoint, output, overwrite=overwrite)
    notes = _refuse_shared_storage(checkpoint, chosen, buffers)
    values, cast_notes = (_as_stored(refs, buffers), []) if exact else _cast_all(refs, buffers)
    try:
        edits, changed_tensors = _plan(checkpoint, refs, values)
        with _temporary_beside(output) as temporary:
            sha256 = _copy_and_edit(checkpoint, temporary, edits)
            changed_bytes = compare_bytes(checkpoint, temporary, edits)
            compare_tensors(checkpoint, temporary, refs, values)
            if before_publishing is not None:
                before_publishing(sha256)
            if in_place:
                replace_original(checkpoint.source, temporary, output, sha256)
            else:
                publish(temporary, output, overwrite=overwrite)
    except CheckpointError as problem:
        raise WriteError(
            f"{output} was not written: {problem.message}", hint=problem.hint
        ) from problem
    return PatchRecord(changed_bytes, changed_tensors, sha256, (*notes, *cast_notes))


def _check_output(checkpoint: Checkpoint, output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        raise WriteError(f"{output} is a folder", hint="Name a file with -o.")
    if not output.parent.is_dir():
        raise WriteError(f"the folder {output.parent} does not exist", hint="Create it first.")
    if os.path.lexists(output):
        if output.exists() and output.samefile(checkpoint.path):
            raise WriteError(
                f"{output} is the checkpoint itself; it is never written in place",
                hint="Name another file with -o.",
            )
        if not overwrite:
            raise WriteError(f"{output} exists already", hint="Use --overwrite, or -o NAME.")


def _refuse_shared_storage(
    checkpoint: Checkpoint, chosen: Candidate, buffers: Mapping[str, torch.Tensor]
) -> list[str]:
    """Notes on tensors that are the same bytes under another name; an error where they differ.

    Raises:
        WriteError: If patching would change a tensor that was not named.
    """
    by_record: dict[str, list[tuple[str, TensorRef]]] = {}
    for name in buffers:
        ref = chosen.tensors[name]
        if ref.overlaps_itself:
            raise WriteError(f"{name!r} repeats its elements in the file and cannot be patched")
        by_record.setdefault(ref.storage.record, []).append((name, ref))
    ours = {".".join((*chosen.path, name)) for name in buffers}
    notes = []
    for path, other in all_tensors(checkpoint.root):
        label = ".".join(path)
        if label in ours or other.obstacle is not None:
            continue
        for name, ref in by_record.get(other.storage.record, ()):
            if not _overlap(ref, other):
                continue
            if not _is_alias(name, ref, label, other):
                raise WriteError(
                    f"{name!r} shares its bytes with {label!r}, which would change with it",
                    hint="Save the checkpoint with both tensors cloned.",
                )
            notes.append(f"{label} is the same bytes as {name} and changes with it")
    return notes


def _overlap(one: TensorRef, other: TensorRef) -> bool:
    (a, b), (c, d) = one.span, other.span
    return a < d and c < b


def _is_alias(name: str, ref: TensorRef, label: str, other: TensorRef) -> bool:
    """Whether the other name means the same buffer: one module registered twice, or EMA = raw."""
    same_bytes = ref.span == other.span and ref.shape == other.shape and ref.dtype == other.dtype
    return same_bytes and name.rpartition(".")[2] == label.rpartition(".")[2]


def _cast_all(
    refs: Mapping[str, TensorRef], buffers: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """New values in their stored dtypes, and notes on what was rounded."""
    values: dict[str, torch.Tensor] = {}
    rounded: dict[torch.dtype, int] = {}
    for name, given in buffers.items():
        ref = refs[name]
        if tuple(given.shape) != ref.shape:
            raise WriteError(f"{name!r} has shape {tuple(given.shape)}, the file holds {ref.shape}")
        source = given.detach().to("cpu")
        value = source.to(ref.dtype)
        if not torch.equal(value.to(source.dtype), source):
            if not bool(torch.isfinite(source).all()):
                raise WriteError(f"the new values of {name!r} are not finite")
            if not bool(torch.isfinite(value).all()):
                raise WriteError(
                    f"{name!r} is stored as {_short(ref.dtype)}, which cannot hold its new values"
                )
            rounded[ref.dtype] = rounded.get(ref.dtype, 0) + 1
        values[name] = value
    notes = [
        f"{count} tensors are stored as {_short(dtype)}: new values rounded to it"
        for dtype, count in rounded.items()
        if dtype != torch.float32
    ]
    return values, notes


def _as_stored(
    refs: Mapping[str, TensorRef], buffers: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Values that came from such a file, to be put back bit for bit, NaN included."""
    for name, value in buffers.items():
        if value.dtype != refs[name].dtype or tuple(value.shape) != refs[name].shape:
            raise WriteError(
                f"{name!r} was {_short(value.dtype)} {tuple(value.shape)}, the file holds "
                f"{_short(refs[name].dtype)} {refs[name].shape}"
            )
    return dict(buffers)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _plan(
    checkpoint: Checkpoint, refs: Mapping[str, TensorRef], values: Mapping[str, torch.Tensor]
) -> tuple[list[Edit], int]:
    """The edits, sorted, and how many tensors they change."""
    by_record: dict[str, list[str]] = {}
    for name in values:
        ref = refs[name]
        ref.check(name, checkpoint.record_size(ref.storage.record) if ref.numel else 0)
        if ref.numel:
            by_record.setdefault(ref.storage.record, []).append(name)
    edits: list[Edit] = []
    changed = 0
    for record, names in by_record.items():
        spot = checkpoint.spot(record)
        data = checkpoint.read_record(record)
        for name in names:
            view = refs[name].view_of(data)
            changed += not same_bits(view, values[name])
            view.copy_(values[name])
        for name in names:
            if not same_bits(refs[name].view_of(data), values[name]):
                raise WriteError(f"{name!r} shares its bytes with another buffer that differs")
        start = min(refs[name].span[0] for name in names)
        end = max(refs[name].span[1] for name in names)
        edits.append(Edit(spot.offset + start, bytes(data[start:end])))
        checksum = zlib.crc32(data).to_bytes(4, "little")
        edits.extend(Edit(place, checksum) for place in spot.checksums)
    return sorted(edits, key=lambda edit: edit.offset), changed


@contextmanager
def _temporary_beside(output: Path) -> Iterator[Path]:
    """A new empty file in the output's folder, gone afterwards whatever happens."""
    made = False
    try:
        with temporary_beside(output) as temporary:
            made = True
            yield temporary
    except OSError as problem:
        if made:
            raise WriteError(
                f"{output} was not written: {problem.strerror or problem}",
                hint="Is the disk full? The original is untouched.",
            ) from problem
        raise WriteError(
            f"cannot write in {output.parent}: {problem.strerror or problem}",
            hint="Name a file in another folder with -o.",
        ) from problem


def _copy_and_edit(checkpoint: Checkpoint, temporary: Path, edits: list[Edit]) -> str:
    """Copy the checkpoint, apply the edits, make them durable; the digest of the new file."""
    before = hashlib.sha256()
    with checkpoint.source.open() as original, temporary.open("r+b") as copy:
        while chunk := original.read(CHUNK):
            before.update(chunk)
            copy.write(chunk)
        for edit in edits:
            copy.seek(edit.offset)
            copy.write(edit.data)
        copy.flush()
        os.fsync(copy.fileno())
    known = checkpoint.source.known_sha256
    if known is not None and known != before.hexdigest():
        raise WriteError(
            f"{checkpoint.path} has changed since it was read; nothing was written",
            hint="Is a training run still writing it? Copy the file and use the copy.",
        )
    with suppress(OSError):
        shutil.copymode(checkpoint.path, temporary)
    after = hashlib.sha256()
    with temporary.open("rb") as copy:
        while chunk := copy.read(CHUNK):
            after.update(chunk)
    return after.hexdigest()
