"""The directory of a zip file, believed only after it was checked.

``zipfile`` reads the central directory; what it claims (sizes, places, names) is compared with the
file before anything is unpacked. Bytes are then read where they lie, so that the same places can
be patched.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.source import SourceFile

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_HAS_DESCRIPTOR = 0x08
_ENCRYPTED = 0x01
_SMALL = 64 * 2**20
_MAX_RATIO = 200


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside the zip; all offsets count from the start of the zip file."""

    name: str
    data: int
    """Offset of the member's bytes."""
    stored: int
    """Bytes it takes up in the zip."""
    size: int
    """Bytes it holds."""
    crc: int
    compressed: bool
    checksums: tuple[int, ...]
    """Offsets of every place where the CRC-32 of this member is written."""


class ZipDirectory:
    """Members by name, each checked against the file when it is read."""

    def __init__(self, source: SourceFile) -> None:
        """Read the central directory.

        Raises:
            CheckpointError: If it is damaged, lies about sizes, or holds a name twice.
        """
        self.source = source
        infos = self._central()
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise CheckpointError(
                f"{source.path}: the zip directory lists a name twice",
                hint="Readers would disagree on which one counts; save the file again.",
            )
        _refuse_bombs(source, infos)
        if infos and min(info.header_offset for info in infos) > 0:
            # What zipfile found at the end is then the directory of a zip file within this one.
            raise self._damaged("its own directory is missing")
        # torch.serialization.set_crc32_options(False) writes 0 in place of every checksum.
        self._unchecked = not any(info.CRC for info in infos)
        self._members: dict[str, Member] = {}
        self._central_checksums = self._find_central_checksums()

    @property
    def names(self) -> tuple[str, ...]:
        """All member names, in the directory's order."""
        return tuple(self._infos)

    def _central(self) -> list[zipfile.ZipInfo]:
        try:
            with self.source.open() as stream, zipfile.ZipFile(stream) as archive:
                self._central_start = archive.start_dir
                return archive.infolist()
        except (
            zipfile.BadZipFile,
            ValueError,
            struct.error,
            NotImplementedError,
            OSError,
        ) as problem:
            raise self._damaged(str(problem)) from problem

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source.path} is a damaged or truncated zip file: {why}",
            hint="Fetch or save the file again.",
        )

    def _find_central_checksums(self) -> dict[str, int]:
        """Offset of the CRC-32 of each member in the central directory."""
        tail = self.source.read(self._central_start, self.source.size - self._central_start)
        places: dict[str, int] = {}
        at = 0
        for name in self._infos:
            if at + _CENTRAL.size > len(tail):
                raise self._damaged("the directory is cut off")
            fields = _CENTRAL.unpack_from(tail, at)
            if fields[0] != b"PK\x01\x02":
                raise self._damaged("the directory is not where it should be")
            places[name] = self._central_start + at + 16
            at += _CENTRAL.size + fields[10] + fields[11] + fields[12]
        return places

    def member(self, name: str) -> Member:
        """Where a member's bytes and checksums lie.

        Raises:
            CheckpointError: If its local header contradicts the directory.
        """
        if name not in self._members:
            info = self._infos.get(name)
            if info is None:
                raise CheckpointError(
                    f"{self.source.path}: record {name!r} is missing from the zip file",
                    hint="The file is damaged; fetch or save it again.",
                )
            self._members[name] = self._locate(info)
        return self._members[name]

    def _locate(self, info: zipfile.ZipInfo) -> Member:
        start = info.header_offset
        if start < 0 or start + _LOCAL.size > self.source.size:
            raise self._damaged(f"record {info.filename!r} lies outside the file")
        fields = _LOCAL.unpack(bytes(self.source.read(start, _LOCAL.size)))
        name_size, extra_size = fields[9], fields[10]
        data = start + _LOCAL.size + name_size + extra_size
        if fields[0] != b"PK\x03\x04" or data + info.compress_size > self.source.size:
            raise self._damaged(f"record {info.filename!r} is not where the directory says")
        raw = bytes(self.source.read(start + _LOCAL.size, name_size))
        if raw.decode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace") != (
            info.orig_filename
        ):
            raise self._damaged(f"record {info.filename!r} has another name in its own header")
        places = [self._central_checksums[info.filename]]
        # With bit 3 the header may leave the checksum 0 and give it after the data instead.
        if not info.flag_bits & _HAS_DESCRIPTOR or fields[6] == info.CRC != 0:
            places.append(start + 14)
        if info.flag_bits & _HAS_DESCRIPTOR:
            places.append(self._descriptor(data + info.compress_size, info))
        return Member(
            name=info.filename,
            data=data,
            stored=info.compress_size,
            size=info.file_size,
            crc=info.CRC,
            compressed=info.compress_type != zipfile.ZIP_STORED,
            checksums=() if self._unchecked else tuple(places),
        )

    def _descriptor(self, at: int, info: zipfile.ZipInfo) -> int:
        """Offset of the checksum in the descriptor that follows a member's bytes."""
        if at + 8 > self.source.size:
            raise self._damaged(f"record {info.filename!r} is cut off")
        head = bytes(self.source.read(at, 8))
        expected = struct.pack("<I", info.CRC)
        if head[:4] == b"PK\x07\x08" and head[4:] == expected:
            return at + 4
        if head[:4] == expected:
            return at
        raise self._damaged(f"record {info.filename!r} is followed by another checksum")

    def read(self, name: str) -> bytearray:
        """A member's bytes, their checksum verified.

        Raises:
            CheckpointError: If they are damaged or missing.
        """
        member = self.member(name)
        if member.compressed:
            return self._inflate(name)
        if member.stored != member.size:
            raise self._damaged(f"record {name!r} has two sizes")
        data = self.source.read(member.data, member.size)
        if not self._unchecked and zlib.crc32(data) != member.crc:
            raise self._damaged(f"record {name!r} does not match its checksum")
        return data

    def _inflate(self, name: str) -> bytearray:
        try:
            with self.source.open() as stream, zipfile.ZipFile(stream) as archive:
                return bytearray(archive.read(name))
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            RuntimeError,  # NotImplementedError too: a compression that zipfile does not know
        ) as problem:
            raise self._damaged(f"record {name!r}: {problem}") from problem


def _refuse_bombs(source: SourceFile, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse what would unpack to far more than the file could honestly hold."""
    taken = 0
    for info in infos:
        taken += info.compress_size
        if info.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"{source.path}: record {info.filename!r} is encrypted")
        if info.file_size > _SMALL and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
            raise CheckpointError(
                f"{source.path}: record {info.filename!r} claims to unpack "
                f"{info.compress_size:,} bytes into {info.file_size:,}; it was not unpacked",
                hint="This is how a zip bomb looks. If the file is yours, save it uncompressed.",
            )
    unpacked = sum(info.file_size for info in infos)
    if taken > source.size or (unpacked > _SMALL and unpacked > _MAX_RATIO * source.size):
        raise CheckpointError(
            f"{source.path}: its {len(infos):,} records claim {taken:,} bytes of a file of "
            f"{source.size:,}, and {unpacked:,} unpacked; it was not unpacked",
            hint="Records overlap, as in a zip bomb, or the file is damaged.",
        )
