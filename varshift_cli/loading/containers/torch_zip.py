"""The zip format that ``torch.save`` has written since torch 1.6, read without ``torch.load``.

A folder inside the zip holds ``data.pkl`` (the object, tensors as references) and ``data/<key>``
(each storage's bytes, uncompressed).
"""

from __future__ import annotations

import io
from typing import Any

from varshift_cli.errors import CheckpointError, WriteError
from varshift_cli.loading.containers.checkpoint import Checkpoint, Spot
from varshift_cli.loading.containers.pickles import read_pickle
from varshift_cli.loading.containers.rebuilders import REBUILDERS, storage_ref
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.whole_module import HoldsPickledModule
from varshift_cli.loading.containers.zip_directory import ZipDirectory


class ZippedCheckpoint(Checkpoint):
    """Records that are members of a zip file."""

    def __init__(self, source: SourceFile, directory: ZipDirectory, folder: str) -> None:
        """Keep the directory.

        Args:
            source: The file.
            directory: Its zip directory.
            folder: Name of the folder that holds all records, with its slash; may be empty.
        """
        super().__init__(source)
        self.directory = directory
        self.folder = folder
        self._refuse_big_endian()

    def _refuse_big_endian(self) -> None:
        name = f"{self.folder}byteorder"
        if name not in self.directory.names:
            return
        order = bytes(self.directory.read(name)).strip()
        if order != b"little":
            raise CheckpointError(
                f"{self.path} was written in {order.decode('ascii', 'replace')[:20]!r} byte order",
                hint="Load it on a machine of that kind and save it from a little-endian one.",
            )

    def record_size(self, record: str) -> int:
        """Bytes that a member holds."""
        return self.directory.member(record).size

    def read_record(self, record: str) -> bytearray:
        """A member's bytes, checksum verified."""
        return self.directory.read(record)

    def spot(self, record: str) -> Spot:
        """Where a stored member lies.

        Raises:
            WriteError: If it is compressed.
        """
        member = self.directory.member(record)
        if member.compressed:
            raise WriteError(
                f"{self.path}: record {record!r} is compressed and cannot be patched in place",
                hint="Load it and torch.save() it again; torch stores tensors uncompressed.",
            )
        return Spot(member.data, member.size, member.checksums)


class TorchZip(HoldsPickledModule, ZippedCheckpoint):
    """A checkpoint written by ``torch.save``, with a module or without."""

    container = "zip"

    def __init__(
        self, source: SourceFile, directory: ZipDirectory, folder: str, *, allow_pickle: bool
    ) -> None:
        """Read ``data.pkl``."""
        super().__init__(source, directory, folder)
        self.allow_pickle = allow_pickle
        name = f"{folder}data.pkl"
        self._root = read_pickle(
            io.BytesIO(directory.read(name)),
            what=f"{name} of {source.path}",
            rebuilders=REBUILDERS,
            persistent=lambda pid: storage_ref(pid, prefix=f"{folder}data/"),
        )
        self.container = self.container_kind("zip")

    @property
    def root(self) -> Any:
        """The pickled object."""
        return self._root
