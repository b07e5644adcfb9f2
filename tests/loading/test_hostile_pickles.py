"""Pickles made to run code. Each would leave a file behind if a single call went through."""

from __future__ import annotations

import contextlib
import copyreg
import io
import os
import pickle
import struct
import time
from pathlib import Path

import pytest

from tests.loading.files import zip_with
from varshift_cli.errors import CheckpointError
from varshift_cli.loading import open_checkpoint
from varshift_cli.loading.containers.legacy import _MAGIC

MAGIC = pickle.dumps(_MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def baits(sentinel: Path) -> dict[str, bytes]:
    """Name of the trick -> pickle that would create the sentinel."""
    touch = f"touch {sentinel}"
    call = _text(touch)
    system = b"cos\nsystem\n"
    nested = b"cos\nsystem\n(" + call + b"tR."
    code = f"open({str(sentinel)!r}, 'w').close()"
    return {
        "reduce": b"\x80\x02" + system + b"(" + call + b"tR.",
        "stack_global": b"\x80\x04" + _text("os") + _text("system") + b"\x93(" + call + b"tR.",
        "inst": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "obj": b"(" + system + call + b"o.",
        "newobj": b"\x80\x02" + system + call + b"\x85\x81.",
        "newobj_ex": b"\x80\x04" + system + call + b"\x85}\x92.",
        "build_setstate": b"\x80\x02cbuiltins\nobject\n)\x81}("
        + _text("__setstate__")
        + system
        + b"ub"
        + call
        + b"b.",
        "build_on_global": b"\x80\x02"
        + system
        + b"}("
        + _text("__class__")
        + b"cbuiltins\nint\nub"
        + b"("
        + call
        + b"tR.",
        "build_on_rebuilder": b"\x80\x02ccollections\nOrderedDict\nq\x00}("
        + _text("__new__")
        + system
        + b"ub0h\x00("
        + call
        + b"tR.",
        "build_slots": b"\x80\x02ccollections\nOrderedDict\n)R"
        b"N}(" + _text("__reduce__") + system + b"u\x86b.",
        "eval": b"\x80\x02cbuiltins\neval\n("
        + _text(f"__import__('os').system({touch!r})")
        + b"tR.",
        "exec": b"\x80\x02c__builtin__\nexec\n(" + _text(code) + b"tR.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\nsystem\n"
        + _text("__call__")
        + b"tR("
        + call
        + b"tR.",
        "import": b"\x80\x02cbuiltins\n__import__\n(" + _text("os") + b"tR.",
        "subprocess": b"\x80\x02csubprocess\nPopen\n(("
        + _text("touch")
        + _text(str(sentinel))
        + b"ltR.",
        "partial": b"\x80\x02cfunctools\npartial\n(" + system + call + b"tR)R.",
        "map": b"\x80\x02cbuiltins\nlist\n(cbuiltins\nmap\n(" + system + b"(" + call + b"ltRtR.",
        "torch_load": b"\x80\x02ctorch\nload\n(" + _text(str(sentinel)) + b"tR.",
        "load_from_bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n(B"
        + struct.pack("<I", len(nested))
        + nested
        + b"tR.",
        "nested_loads": b"\x80\x02c_pickle\nloads\n(B"
        + struct.pack("<I", len(nested))
        + nested
        + b"tR.",
        "memo": b"\x80\x02"
        + system
        + b"q\x05r\x00\x01\x00\x000h\x05("
        + call
        + b"tRj\x00\x01\x00\x00("
        + call
        + b"tR.",
        "persistent_id": b"\x80\x02" + system + call + b"\x86Q.",
        "persistent_storage": b"\x80\x02("
        + _text("storage")
        + system
        + call
        + _text("cpu")
        + b"K\x01tQ.",
        "dict_key": b"\x80\x02}" + system + b"(" + call + b"tRK\x01s.",
        "append": b"\x80\x02ccollections\ndeque\n)R(" + system + b"(" + call + b"tRe.",
        "default_factory": b"\x80\x02ccollections\ndefaultdict\n(" + system + b"tR.",
        "numpy_scalar": b"\x80\x02cnumpy.core.multiarray\nscalar\n(" + system + call + b"tR.",
        "rebuild_from_type": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n("
        + system
        + b"Nc__builtin__\nint\n("
        + call
        + b"t}tR.",
        "rebuild_function": b"\x80\x02ctorch._utils\n_rebuild_parameter\n("
        + system
        + b"\x89}tR("
        + call
        + b"tR.",
        "module_class": b"\x80\x02("
        + _text("module")
        + system
        + _text("f")
        + _text("src")
        + b"tQ("
        + call
        + b"tR.",
        "dotted_name": b"\x80\x04"
        + _text("collections")
        + _text("abc.sys.modules")
        + b"\x93("
        + call
        + b"tR.",
        "ext": b"\x80\x02\x82\xf0(" + call + b"tR.",
    }


NAMES = sorted(baits(Path("x")))


@pytest.fixture
def extension():
    """An extension code for os.system, with CPython's cache of it filled."""
    copyreg.add_extension("os", "system", 0xF0)
    pickle.loads(b"\x80\x02\x82\xf0.")
    yield
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg._extension_cache.pop(0xF0, None)


@pytest.mark.parametrize("name", [n for n in NAMES if n in {"reduce", "inst", "obj", "ext"}])
def test_the_baits_bite_where_pickle_is_trusted(tmp_path, extension, name):
    """The control: unpickled in earnest, a bait does leave its file."""
    sentinel = tmp_path / "ran"

    with contextlib.suppress(Exception):
        pickle.loads(baits(sentinel)[name])

    assert sentinel.exists()


@pytest.mark.parametrize("where", ["zip", "legacy", "torchscript", "nested"])
@pytest.mark.parametrize("name", NAMES)
def test_no_pickle_runs_anything(tmp_path, extension, monkeypatch, name, where):
    """Every known way of making a pickle run code runs nothing, in every container."""
    sentinel = tmp_path / "ran"
    monkeypatch.setattr(os, "system", lambda _: sentinel.write_text("ran"))
    bait = baits(sentinel)[name]
    path = tmp_path / "x.pt"
    if where == "legacy":
        path.write_bytes(MAGIC + bait + pickle.dumps([], 2))
    elif where == "nested":
        zip_with(
            path, b"\x80\x02}(" + _text("state_dict") + bait.removeprefix(b"\x80\x02")[:-1] + b"u."
        )
    else:
        zip_with(path, bait, scripted=where == "torchscript")

    with pytest.raises(CheckpointError):
        open_checkpoint(path).state_dict()

    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("name", "pickled"),
    [
        ("deep tuples as a key", b"\x80\x02}" + b"K\x01" + b"\x85" * 200_000 + b"K\x01s."),
        ("deep lists", b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
        ("a huge memo index", b"\x80\x02K\x01r\xff\xff\xff\xff."),
        ("a string that claims 4 GB", b"\x80\x02X\xff\xff\xff\xffabc."),
        ("bytes that claim 2**62", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x3fabc."),
        ("a bytearray that claims 2**62", b"\x80\x05\x96" + b"\xff" * 7 + b"\x3fabc."),
        ("a huge integer", b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"."),
        (
            "a huge integer as a key",
            b"\x80\x02}\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"K\x01s.",
        ),
        (
            "one list rebuilt over and over",
            b"\x80\x02](" + b"K\x01" * 50_000 + b"eq\x00ccollections\nCounter\nq\x01"
            + b"(h\x01h\x00\x85R" * 20_000 + b"t.",
        ),
        (
            "a doubling chain of references",
            b"\x80\x02]"
            + b"".join(
                b"q" + bytes([i]) + b"]h" + bytes([i]) + b"ah" + bytes([i]) + b"a"
                for i in range(200)
            )
            + b".",
        ),
        ("an empty stack", b"\x80\x02R."),
        ("a mark without end", b"\x80\x02t."),
        ("an unknown opcode", b"\x80\x02\xf9."),
        ("no end", b"\x80\x02}"),
        ("nothing", b""),
    ],
)  # fmt: skip
def test_pickles_made_to_exhaust_end_quickly(tmp_path, name, pickled):
    """Stack, memory and time stay bounded whatever the pickle claims."""
    path = zip_with(tmp_path / "x.pt", pickled)
    started = time.monotonic()

    with pytest.raises(CheckpointError):
        open_checkpoint(path).state_dict()

    assert time.monotonic() - started < 5, name


def test_what_is_read_cannot_be_called(tmp_path):
    """A function that a pickle names stays a name, wherever it ends up."""
    pickled = pickle.dumps({"hyper_parameters": {"f": print, "n": 3}, "o": io.BytesIO}, 2)
    path = zip_with(tmp_path / "x.pt", pickled)

    root = open_checkpoint(path).root

    assert not callable(root["o"])
    assert not callable(root["hyper_parameters"]["f"])
    assert root["hyper_parameters"]["n"] == 3
