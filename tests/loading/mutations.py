"""Ways to damage a file: blindly, and with knowledge of its format.

Every function takes a ``random.Random`` and the file's bytes and gives other bytes. What knows a
format repairs the outer shell again (checksums, lengths), so that the damage reaches what lies
behind the first check.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

_LARGEST_INSERT = 64
_INTERESTING = (
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1,
    2**63, 2**64 - 1,
)  # fmt: skip
_HOSTILE = (
    b"cos\nsystem\n", b"cposix\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n",
    b"csubprocess\nPopen\n", b"X\x09\x00\x00\x00touch ran", b"(tR", b"\x93", b"\x81", b"\x92", b"b",
    b"R", b"Q", b"\x82\xf0", b"i__main__\nx\n", b"o", b"h\x00", b"q\xff", b"j\xff\xff\xff\x7f",
)  # fmt: skip
"""Pieces of pickles that run code, to be put between a checkpoint's own opcodes."""


def flip_bits(random: Random, data: bytes) -> bytes:
    """Flip a few bits anywhere."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(random: Random, data: bytes) -> bytes:
    """Cut the end off, often just a little."""
    cut = random.choice((random.randrange(len(data)), random.randrange(min(len(data), 40)) + 1))
    return data[: max(len(data) - cut, 1)]


def splice(random: Random, data: bytes) -> bytes:
    """Copy a run of bytes to another place, over what is there or between."""
    start = random.randrange(len(data))
    run = data[start : start + random.randrange(1, 256)]
    at = random.randrange(len(data))
    return data[:at] + run + data[at + random.choice((0, len(run))) :]


def delete(random: Random, data: bytes) -> bytes:
    """Take a run of bytes out."""
    at = random.randrange(len(data))
    return (data[:at] + data[at + random.randrange(1, 64) :]) or b"\0"


def insert(random: Random, data: bytes) -> bytes:
    """Put noise, zeros or a hostile piece somewhere."""
    at = random.randrange(len(data))
    noise = random.randbytes(random.randrange(1, _LARGEST_INSERT))
    piece = random.choice((noise, b"\0" * len(noise), random.choice(_HOSTILE)))
    return data[:at] + piece + data[at:]


def set_number(random: Random, data: bytes) -> bytes:
    """Overwrite 2, 4 or 8 bytes by a number at an edge: lengths and counts are such."""
    width = random.choice((2, 4, 8))
    value = random.choice((*_INTERESTING, len(data), len(data) + 1, random.getrandbits(64)))
    at = random.randrange(max(len(data) - width, 1))
    number = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return data[:at] + number + data[at + width :]


BLIND: tuple[Mutation, ...] = (flip_bits, truncate, splice, delete, insert, set_number)


def several(mutations: Sequence[Mutation]) -> Mutation:
    """One to three of these, one after the other."""

    def mutate(random: Random, data: bytes) -> bytes:
        for _ in range(random.choice((1, 1, 2, 3))):
            data = random.choice(mutations)(random, data)
        return data

    return mutate


def edit_opcodes(random: Random, pickled: bytes) -> bytes:
    """Change a pickle between its opcodes: drop, repeat, swap, or put a hostile one there."""
    cuts = _opcode_cuts(pickled)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(cuts) - 1)
        one = pickled[cuts[at] : cuts[at + 1]]
        where = random.choice(cuts[:-1])
        action = random.randrange(5)
        if action == 0:
            pickled = pickled[: cuts[at]] + pickled[cuts[at + 1] :]
        elif action == 1:
            pickled = pickled[:where] + one * random.choice((1, 2, 50)) + pickled[where:]
        elif action == 2:
            pickled = pickled[:where] + random.choice(_HOSTILE) + pickled[where:]
        elif action == 3:
            pickled = pickled[: cuts[at]] + bytes([random.randrange(256)]) + pickled[cuts[at] + 1 :]
        else:
            pickled = pickled[: cuts[at]] + flip_bits(random, one) + pickled[cuts[at + 1] :]
        if not pickled:
            return b"."
        cuts = _opcode_cuts(pickled)
    return pickled


def _opcode_cuts(pickled: bytes) -> list[int]:
    """Where opcodes begin, as far as they can be read, and the end."""
    cuts = []
    try:
        cuts = [at or 0 for _, _, at in pickletools.genops(pickled)]
    except Exception:  # noqa: BLE001 - a pickle damaged before may be damaged in any way
        cuts = cuts or [0]
    return sorted({0, *cuts, len(pickled)})


def edit_json(random: Random, text: bytes) -> bytes:
    """Change values of a JSON document anywhere inside, or its text."""
    try:
        value = json.loads(text)
    except ValueError:
        return several(BLIND)(random, text)
    for _ in range(random.choice((1, 2, 5))):
        value = _edited(random, value)
    return json.dumps(value).encode()


def _edited(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.95:
        key = random.choice(list(value))
        action = random.randrange(12)
        if action == 0:
            return {name: item for name, item in value.items() if name != key}
        if action == 1:
            return {**value, random.choice(_STRINGS): value[key]}
        return {**value, key: _edited(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        if random.randrange(8) == 0:
            return value[:at] + value[at + 1 :]
        return [*value[:at], _edited(random, value[at]), *value[at + 1 :]]
    return random.choice((*_INTERESTING, -1, 1.5, None, True, [], {}, *_STRINGS))


_STRINGS = (
    "", "F32", "U8", "../../x", "__import__('os').system('touch ran')", "os.system", "x" * 5000,
    "\0", "torch.ops.aten.add.Tensor", "torch.load", "weight_0", "data_offsets", "shape", "NaN",
    "builtins.eval", "_operator.call", "torch.ops.load_library", "s0 + exec('1')",
)  # fmt: skip


def edit_zip_member(random: Random, data: bytes) -> bytes:
    """Change what a member holds, or its name, and write the zip anew with right checksums."""
    members = _members(data)
    at = random.choice(_worth_editing(members))
    name, content = members[at]
    members[at] = (_edited_name(random, name), _edited_content(random, name, content))
    if random.randrange(20) == 0:
        members.append(random.choice(members))
    if random.randrange(20) == 0:
        members.pop(random.randrange(len(members)))
    return _zipped(members, compress=random.randrange(10) == 0)


def _worth_editing(members: list[tuple[str, bytes]]) -> list[int]:
    """Mostly those with structure: pickles, JSON, code."""
    rich = [at for at, (name, _) in enumerate(members) if name.endswith((".pkl", ".json", ".py"))]
    return [*range(len(members)), *(rich * 4)]


def _edited_name(random: Random, name: str) -> str:
    if random.randrange(15):
        return name
    return random.choice(("x", "../x", name + "x", "data.pkl", name.upper(), "archive/data.pkl"))


def _edited_content(random: Random, name: str, content: bytes) -> bytes:
    if not content:
        return random.randbytes(8)
    if name.endswith(".pkl"):
        return random.choice((edit_opcodes, edit_opcodes, several(BLIND)))(random, content)
    if name.endswith(".json"):
        return random.choice((edit_json, edit_json, several(BLIND)))(random, content)
    return several(BLIND)(random, content)


def _members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _zipped(members: list[tuple[str, bytes]], *, compress: bool) -> bytes:
    stream = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
    return stream.getvalue()


def edit_zip_directory(random: Random, data: bytes) -> bytes:
    """Change bytes of the central directory, of its end, or of a local header."""
    marks = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04", b"PK\x06\x06")
    places = [at for mark in marks for at in _all_of(data, mark)]
    if not places:
        return flip_bits(random, data)
    at = random.choice(places) + random.randrange(4, 46)
    width = random.choice((1, 2, 4))
    value = random.choice((*_INTERESTING, len(data), random.getrandbits(32)))
    return data[:at] + (value % 2 ** (8 * width)).to_bytes(width, "little") + data[at + width :]


def _all_of(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def edit_safetensors(random: Random, data: bytes) -> bytes:
    """Change the JSON header and give its right length again, mostly."""
    size = int.from_bytes(data[:8], "little")
    header = edit_json(random, data[8 : 8 + size])
    length = len(header) if random.randrange(5) else random.choice(_INTERESTING) % 2**64
    return struct.pack("<Q", length) + header + data[8 + size :]


def edit_legacy(random: Random, data: bytes) -> bytes:
    """Change one of the five pickles of a legacy file between its opcodes."""
    ends, stream = [0], io.BytesIO(data)
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    at = random.choice((0, 1, 2, 3, 3, 3, 3, 4, 4))
    pickled = edit_opcodes(random, data[ends[at] : ends[at + 1]])
    return data[: ends[at]] + pickled + data[ends[at + 1] :]


ZIPPED: tuple[Mutation, ...] = (edit_zip_member, edit_zip_member, edit_zip_directory)


def mutate(kind: str, random: Random, data: bytes) -> bytes:
    """Damage a file of a kind: half of the time blindly, half knowing its format."""
    if random.random() < 0.4:
        return several(BLIND)(random, data)
    if kind == "safetensors":
        return edit_safetensors(random, data)
    if kind.startswith("legacy"):
        return edit_legacy(random, data)
    if kind == "npy":
        return several(BLIND)(random, data)
    return random.choice(ZIPPED)(random, data)
