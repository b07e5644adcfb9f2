"""``<output stem>.varshift``: the old buffers of a repaired checkpoint, and where the new are from.

A safetensors file: the buffers under their stored names, in their stored dtypes; everything else
as text in its metadata. With it a repair can be undone to the bit, and is never made twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from varshift_cli.errors import CheckpointError, CheckpointNotFoundError, UsageError, WriteError
from varshift_cli.interrupts import held_interrupts
from varshift_cli.loading.containers.replacing import digest_of, sync_folder
from varshift_cli.loading.containers.temporary import temporary_beside

FORMAT = "varshift-sidecar-1"
SUFFIX = ".varshift"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the new buffers of a file came from; all text, as safetensors metadata is."""

    output: str
    """Name of the repaired file, without its folder."""
    output_sha256: str
    source: str
    """Name of the original."""
    source_sha256: str
    key: str
    """Where in the file the state dict is."""
    method: str
    """``recalibrate`` or ``correct``."""
    data: str
    """The calibration data, as described in reports."""
    seed: str
    varshift_version: str
    torch_version: str


@dataclass(frozen=True, slots=True, eq=False)
class Sidecar:
    """What a sidecar holds."""

    path: Path
    provenance: Provenance
    buffers: Mapping[str, torch.Tensor]


def sidecar_path(output: Path) -> Path:
    """``model.fixed.varshift`` for ``model.fixed.pt``."""
    return output.with_name(output.stem + SUFFIX)


def check_sidecar_place(output: Path, *, overwrite: bool) -> None:
    """Refuse to write over old buffers that may still be wanted.

    A sidecar whose file is gone, as an interrupted repair leaves it, is in nobody's way.

    Raises:
        UsageError: Something is there; or the sidecar would be the output itself.
    """
    path = sidecar_path(output)
    if path == output:
        raise UsageError(
            f"{output} is the name of its own sidecar",
            hint=f"Give --output a name with another suffix than {SUFFIX}.",
        )
    if not os.path.lexists(path) or overwrite:
        return
    with suppress(CheckpointError):
        found = read_sidecar(path)
        if not os.path.lexists(path.with_name(found.provenance.output)):
            return
    raise UsageError(
        f"{path} is already there: it keeps the old buffers of an earlier repair",
        hint="Add --overwrite to replace it, or give --output another name.",
    )


def write_sidecar(path: Path, provenance: Provenance, buffers: Mapping[str, torch.Tensor]) -> None:
    """Write it whole, or not at all.

    Raises:
        WriteError: It cannot be written.
    """
    metadata = {"format": FORMAT, **asdict(provenance)}
    data = save({name: value.contiguous() for name, value in buffers.items()}, metadata)
    try:
        _replace(path, data)
    except OSError as problem:
        raise WriteError(
            f"{path} was not written, and so nothing was: {problem.strerror or problem}",
            hint="Is the disk full, or the folder read-only? The original is untouched.",
        ) from problem
    sync_folder(path.parent)


def _usual_mode() -> int:
    """What a new file gets; a temporary one is made for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _replace(path: Path, data: bytes) -> None:
    with temporary_beside(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_usual_mode())
        temporary.replace(path)


@contextmanager
def sidecar_restored_on_error(path: Path, output: Path) -> Iterator[None]:
    """On error leave at a sidecar's place what was there before.

    Unless the repaired file stands at its place already: then its old buffers stay too.
    """
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        with held_interrupts(), suppress(OSError):
            if not _describes(path, output):
                _put_back(path, before)
        raise


def _describes(path: Path, output: Path) -> bool:
    """Whether a sidecar is that of the file as it now stands."""
    if not path.is_file() or not output.is_file():
        return False
    try:
        return read_sidecar(path).provenance.output_sha256 == digest_of(output)
    except CheckpointError:
        return False


def _put_back(path: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != before:
        _replace(path, before)


def read_sidecar(path: Path) -> Sidecar:
    """Read it.

    Raises:
        CheckpointNotFoundError: There is none.
        CheckpointError: It is damaged, or no sidecar.
    """
    if not path.is_file():
        raise CheckpointNotFoundError(
            f"there is no {path}, which would hold the old buffers",
            hint="It was written beside the repaired file; put both into one folder again.",
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            buffers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(
            f"{path} is damaged or no sidecar of varshift: {problem}"
        ) from problem
    names = [field.name for field in fields(Provenance)]
    if metadata.get("format") != FORMAT or not all(name in metadata for name in names):
        raise CheckpointError(
            f"{path} is no sidecar that this version of varshift reads",
            hint=f"Its format is {metadata.get('format')!r}, expected {FORMAT!r}.",
        )
    return Sidecar(path, Provenance(**{name: metadata[name] for name in names}), buffers)


def own_sidecar(path: Path, sha256: str) -> Sidecar | None:
    """The sidecar of a file, if there is one and it was written for these very bytes."""
    try:
        found = read_sidecar(sidecar_path(path))
    except CheckpointError:
        return None
    return found if found.provenance.output_sha256 == sha256 else None
