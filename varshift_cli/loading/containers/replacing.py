"""Put a finished file into its place: at every moment it, or what it replaces, is there, whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from varshift_cli.errors import CheckpointError, WriteError
from varshift_cli.loading.containers.source import CHUNK, SourceFile


def replace_original(source: SourceFile, temporary: Path, output: Path, sha256: str) -> None:
    """Replace a checkpoint by its verified successor.

    The original keeps a second name beside it until the successor was read back from its final
    place.

    Args:
        source: The checkpoint, as it was read.
        temporary: What replaces it, in the same folder.
        output: The checkpoint's path.
        sha256: Digest of ``temporary``.

    Raises:
        CheckpointError: The checkpoint has changed since it was read; it is left alone.
        WriteError: It could not be done; the original is at its place.
    """
    backup = backup_path(output)
    _clear_leftover(backup, output)
    with source.open():  # the last look: still the file that was read?
        pass
    _keep(output, backup)
    temporary.replace(output)
    sync_folder(output.parent)
    if digest_of(output) != sha256:
        backup.replace(output)
        raise WriteError(f"{output} did not read back as written; the original is in its place")
    backup.unlink()


def publish(temporary: Path, output: Path, *, overwrite: bool) -> None:
    """Give the finished file its name, in one step, and never over another file unasked.

    Raises:
        WriteError: If a file has appeared at ``output`` meanwhile.
    """
    if overwrite:
        temporary.replace(output)
    else:
        try:
            os.link(temporary, output)
        except FileExistsError as problem:
            raise WriteError(f"{output} exists already", hint="Use --overwrite.") from problem
        except OSError:
            # No hard links here (FAT, some network mounts): claim the name, then take it.
            _claim(output)
            try:
                temporary.replace(output)
            except OSError:
                output.unlink()
                raise
    sync_folder(output.parent)


def _claim(output: Path) -> None:
    try:
        output.touch(exist_ok=False)
    except FileExistsError as problem:
        raise WriteError(f"{output} exists already", hint="Use --overwrite.") from problem


def backup_path(output: Path) -> Path:
    """The original's second name while it is replaced: ``model.pt.original``."""
    return output.with_name(f"{output.name}.original")


def _clear_leftover(backup: Path, output: Path) -> None:
    """A second name of the very file tells nothing; another file there is somebody's original."""
    if not os.path.lexists(backup):
        return
    if backup.samefile(output) or digest_of(backup) == digest_of(output):
        backup.unlink()
        return
    raise WriteError(
        f"{backup} is there: an interrupted repair in place left the original under this name",
        hint=f"Compare it with {output.name}; move it back or away, and fix again.",
    )


def _keep(output: Path, backup: Path) -> None:
    try:
        os.link(output, backup)
    except OSError:
        # No hard links here (FAT, some network mounts).
        shutil.copy2(output, backup)
        with backup.open("rb") as copy:
            os.fsync(copy.fileno())


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        CheckpointError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror or problem}") from problem
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make new names durable; not every system lets a folder be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
