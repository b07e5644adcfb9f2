"""A small run of the fuzzer, that its tripwire trips, and what the large runs have found."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.loading.files import write
from varshift_cli.errors import CheckpointError, DataError
from varshift_cli.loading import open_checkpoint, open_model
from varshift_cli.loading.arrays import read_arrays

ROOT = Path(__file__).parents[2]


def fuzz(*arguments):
    command = [sys.executable, "-m", "tests.loading.fuzz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_damaged_files_are_told_in_our_words():
    """250 damaged files of every kind: no other error, no hang, no code run, bounded memory."""
    done = fuzz("--runs", "250", "--seed", "7", "--workers", "1")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "250 files, 0 findings" in done.stdout


def test_the_tripwire_trips():
    """The control: unpickled in earnest, a bait is caught by the hook before it has run."""
    assert fuzz("--control").returncode == 0


def header(text: bytes) -> bytes:
    """A .npy file with any header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64


@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), \n",  # never closed
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3)L}\n",
        b"(" * 4000,
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}\n",
        b"{'descr': '<U9999999', 'fortran_order': False, 'shape': (2,)}\n",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}\n",
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_headers_that_numpy_stumbles_over(tmp_path, text, suffix):
    """A damaged header is a damaged file, whichever error numpy makes of it."""
    path = tmp_path / f"x{suffix}"
    path.write_bytes(header(text))
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", header(text))

    with pytest.raises(DataError):
        read_arrays(path, None, None)


def test_a_member_that_is_no_array(tmp_path):
    """numpy gives such a member as bytes."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"no array at all")

    with pytest.raises(DataError, match="'x' is no array"):
        read_arrays(tmp_path / "x.npz", None, None)


def test_a_zip_within_a_zip_is_not_the_zip(tmp_path):
    """Cut off behind a record that is a zip file itself, a file is not taken for that record."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/byteorder", b"little")
    path = write("exported", tmp_path / "x.pt2")
    path.write_bytes(path.read_bytes()[:500] + inner.getvalue())

    with pytest.raises(CheckpointError, match="its own directory is missing"):
        open_checkpoint(path)


def test_honest_arrays_are_still_read(tmp_path):
    """Compressed, big-endian, zero-dimensional labels, empty names: what numpy writes is read."""
    x = np.arange(12, dtype=">f4").reshape(4, 3)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=np.arange(4))
    np.save(tmp_path / "x.npy", x)

    assert read_arrays(tmp_path / "x.npz", None, None).inputs.tolist() == x.tolist()
    assert read_arrays(tmp_path / "x.npy", None, None).inputs.tolist() == x.tolist()


def test_torchscript_that_torch_stumbles_over(tmp_path):
    """An archive that torch refuses with an error of an unusual kind is refused in our words."""
    path = write("scripted", tmp_path / "x.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    lost = [name for name in members if "/data/" in name or name.endswith(".py")]
    for name in lost:
        with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
            for other, data in members.items():
                if other != name:
                    archive.writestr(other, data)

        with pytest.raises(CheckpointError):
            open_model(open_checkpoint(tmp_path / "y.pt"))
