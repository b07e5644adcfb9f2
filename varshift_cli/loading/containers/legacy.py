"""The format of ``torch.save`` before torch 1.6, and of ``_use_new_zipfile_serialization=False``.

Five pickles in a row (magic number, version, system, object, storage keys), then for each storage
its element count in 8 bytes and its raw bytes. There are no checksums.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.checkpoint import Checkpoint, Spot
from varshift_cli.loading.containers.pickles import GlobalRef, read_pickle
from varshift_cli.loading.containers.rebuilders import REBUILDERS, storage_ref
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.tensors import StorageRef
from varshift_cli.loading.containers.whole_module import HoldsPickledModule

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = b"\x8a\n" + _MAGIC.to_bytes(10, "little")
_VERSION = 1001
_COUNT_BYTES = 8
_LINE = 65536
_MODULE_ID, _VIEW_ID = 4, 6


def is_legacy(head: bytes) -> bool:
    """Whether a file's first bytes are those of this format."""
    return head[:1] == b"\x80" and _MAGIC_BYTES in head[:32]


class LegacyFile(HoldsPickledModule, Checkpoint):
    """A checkpoint in the old format, with a module or without."""

    container = "legacy"

    def __init__(self, source: SourceFile, *, allow_pickle: bool) -> None:
        """Read the pickles and note where each storage lies.

        Raises:
            CheckpointError: If the file is damaged.
        """
        super().__init__(source)
        self.allow_pickle = allow_pickle
        self._element_bytes: dict[str, int] = {}
        self._spots: dict[str, Spot] = {}
        try:
            with source.open() as stream:
                reader = _Bounded(stream, source.size)
                self._read_preamble(reader)
                self._root = self._pickle(reader, "its object")
                keys = self._pickle(reader, "its list of storages")
                self._find_storages(stream, keys)
        except OSError as problem:
            raise self._damaged(str(problem)) from problem
        self.container = self.container_kind("legacy")

    @property
    def root(self) -> Any:
        """The pickled object."""
        return self._root

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is a damaged or truncated torch file (old format): {why}",
            hint="Fetch or save the file again.",
        )

    def _pickle(self, reader: _Bounded, what: str) -> Any:
        return read_pickle(
            reader,
            what=f"{what} in {self.path}",
            rebuilders=REBUILDERS,
            persistent=self._persistent,
        )

    def _read_preamble(self, reader: _Bounded) -> None:
        if self._pickle(reader, "the magic number") != _MAGIC:
            raise self._damaged("the magic number is another")
        version = self._pickle(reader, "the version")
        if version != _VERSION:
            raise self._damaged(f"version {version!r:.40} is not known")
        system = self._pickle(reader, "the system's description")
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise CheckpointError(
                f"{self.path} was written in big-endian byte order",
                hint="Load it on a machine of that kind and save it from a little-endian one.",
            )

    def _persistent(self, pid: Any) -> Any:
        """A storage, a view into one, or the class of a pickled module (kept as a name)."""
        if isinstance(pid, tuple) and len(pid) == _MODULE_ID and pid[0] == "module":
            if isinstance(pid[1], GlobalRef):
                return pid[1]
            raise TypeError("a module's class is no name")
        ref = storage_ref(pid)
        size = self._element_bytes.setdefault(ref.record, ref.dtype.itemsize)
        view = pid[_VIEW_ID - 1] if len(pid) == _VIEW_ID else None
        if view is None:
            return ref
        _, offset, count = view
        if not isinstance(offset, int) or not isinstance(count, int) or offset < 0 or count < 0:
            raise TypeError("a storage view has impossible sizes")
        return StorageRef(ref.record, ref.dtype, offset * size, count * ref.dtype.itemsize)

    def _find_storages(self, stream: BinaryIO, keys: Any) -> None:
        """Storages follow each other in the order of their keys."""
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise self._damaged("the list of storages is none")
        at = stream.tell()
        for key in keys:
            if key not in self._element_bytes:
                raise self._damaged(f"storage {key!r:.40} belongs to nothing")
            stream.seek(at)
            count = int.from_bytes(stream.read(_COUNT_BYTES), "little")
            size = count * self._element_bytes[key]
            if at + _COUNT_BYTES + size > self.source.size:
                raise self._damaged(f"storage {key!r:.40} ends beyond the file")
            self._spots[key] = Spot(at + _COUNT_BYTES, size)
            at += _COUNT_BYTES + size

    def spot(self, record: str) -> Spot:
        """Where a storage lies.

        Raises:
            CheckpointError: If it is missing.
        """
        if record not in self._spots:
            raise self._damaged(f"storage {record!r:.40} is missing")
        return self._spots[record]

    def record_size(self, record: str) -> int:
        """Bytes of a storage."""
        return self.spot(record).size

    def read_record(self, record: str) -> bytearray:
        """A storage's bytes; the format has no checksums."""
        spot = self.spot(record)
        return self.source.read(spot.offset, spot.size)


class _Bounded:
    """A stream that never sets aside more memory than its file can fill."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def read(self, count: int) -> bytes:
        return self._stream.read(min(count, self._size - self._stream.tell()))

    def readline(self) -> bytes:
        return self._stream.readline(_LINE)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)
