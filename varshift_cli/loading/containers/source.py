"""The file behind a checkpoint: opened for reading only, and known again if it changes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from varshift_cli.errors import CheckpointError, CheckpointNotFoundError
from varshift_cli.nearby import file_hint

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one version of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Fingerprint:
        """The fingerprint in a stat result."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class SourceFile:
    """A file as it was when it was first opened; a later change is an error, not a mixture."""

    def __init__(self, path: Path) -> None:
        """Look at the file without reading it.

        Raises:
            CheckpointNotFoundError: If there is none.
            CheckpointError: If it is no regular file, is empty or may not be read.
        """
        self.path = path
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError) as problem:
            raise CheckpointNotFoundError(
                f"no such file: {path}", hint=file_hint(path, "Check the path of the checkpoint.")
            ) from problem
        except (OSError, ValueError) as problem:
            raise CheckpointError(f"{path} cannot be looked at: {problem}") from problem
        if not path.is_file():
            raise CheckpointError(f"{path} is not a regular file")
        if stat.st_size == 0:
            raise CheckpointError(
                f"{path} is empty", hint="A download or a save was cut off; fetch it again."
            )
        self.fingerprint = Fingerprint.of(stat)
        self.bytes_read = 0
        """Bytes asked of the file system so far, the reading ahead of buffers included."""
        self._sha256: str | None = None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.fingerprint.size

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file's bytes, if it is still the same file.

        Raises:
            CheckpointError: If it changed, vanished or cannot be read.
        """
        with self._raw() as raw, io.BufferedReader(raw) as stream:
            yield stream

    @contextmanager
    def _raw(self) -> Iterator[_Counted]:
        """The same without reading ahead."""
        try:
            stream = _Counted(self)
        except OSError as problem:
            raise self._unreadable(problem) from problem
        with stream:
            if Fingerprint.of(os.fstat(stream.fileno())) != self.fingerprint:
                raise CheckpointError(
                    f"{self.path} has changed since it was opened",
                    hint="Is a training run still writing it? Copy the file and use the copy.",
                )
            yield stream

    def _unreadable(self, problem: OSError) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be read: {problem.strerror or problem}")

    def read(self, offset: int, size: int) -> bytearray:
        """Exactly ``size`` bytes from ``offset`` on."""
        if offset + size > self.size:
            raise CheckpointError(
                f"{self.path} ends before byte {offset + size:,}: it is truncated",
                hint="Fetch or save the file again.",
            )
        data = bytearray(size)
        rest = memoryview(data)
        with self._raw() as stream:
            try:
                stream.seek(offset)
                # One read returns at most 2 GiB.
                while rest and (count := stream.readinto(rest)):
                    rest = rest[count:]
            except OSError as problem:
                raise self._unreadable(problem) from problem
        return data

    @property
    def sha256(self) -> str:
        """Hex digest of the whole file, read once."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            with self.open() as stream:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
            self._sha256 = digest.hexdigest()
        return self._sha256

    @property
    def known_sha256(self) -> str | None:
        """The digest, if somebody has asked for it before."""
        return self._sha256


class _Counted(io.FileIO):
    """A file that adds up what is read from it."""

    def __init__(self, source: SourceFile) -> None:
        super().__init__(source.path, "rb")
        self._source = source

    def readinto(self, buffer: Any, /) -> int | None:
        count = super().readinto(buffer)
        self._source.bytes_read += count or 0
        return count

    def readall(self) -> bytes:
        data = super().readall()
        self._source.bytes_read += len(data)
        return data
