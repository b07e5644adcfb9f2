"""Nothing that a run reads, nor anything it cannot give back, is written over."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from varshift_cli.errors import UsageError
from varshift_cli.pipeline import fix_checkpoint
from varshift_cli.pipeline.places import output_path, written_files
from varshift_cli.records import FixRequest, ScanRequest, files_read

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The example, as the current folder."""
    shutil.copytree(DIGITS, tmp_path / "digits")
    monkeypatch.chdir(tmp_path / "digits")
    return tmp_path / "digits"


def request(output: str | None = None, **options) -> FixRequest:
    scan = ScanRequest(
        "model.pt", arch="model.py:build", data="calib.npz", arch_args=("c=@c.json",)
    )
    return FixRequest(scan, output=output, overwrite=True, holdout="heldout.npz", **options)


@pytest.mark.parametrize(
    "name", ["model.pt", "calib.npz", "heldout.npz", "model.py", "varshift.toml", "c.json"]
)
def test_what_is_read_is_never_written_over(folder, name):
    """--overwrite speaks of the output, not of checkpoint, data, code or settings."""
    (folder / "c.json").write_text("{}")
    for method in ("recalibrate", "revert"):
        with pytest.raises(UsageError, match=r"but is|itself"):
            output_path(request(name, method=method))


def test_the_sidecar_has_a_place_of_its_own(folder):
    """An output that is called as its sidecar would lose the old buffers."""
    with pytest.raises(UsageError, match="its own sidecar"):
        output_path(request("r.varshift"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_checkpoint_called_as_a_sidecar_is_not_repaired_in_place(folder, overwrite):
    """Its old buffers would replace it: refused before the model is loaded, and left as it was."""
    Path("model.pt").rename("model.varshift")
    before = Path("model.varshift").read_bytes()
    asked = replace(request(in_place=True), overwrite=overwrite)
    asked = replace(asked, scan=replace(asked.scan, model="model.varshift", arch="nothing.py:f"))
    with pytest.raises(UsageError, match="its own sidecar"):
        fix_checkpoint(asked)
    assert Path("model.varshift").read_bytes() == before


def test_the_sidecar_of_a_repair_in_place_is_nothing_that_is_read(folder):
    """Nor does a revert replace the sidecar from which it takes the old buffers."""
    asked = request(in_place=True)
    asked = replace(asked, scan=replace(asked.scan, data="model.varshift"))
    with pytest.raises(UsageError, match="is what --data reads"):
        output_path(asked)
    with pytest.raises(UsageError, match="the sidecar with the old buffers"):
        output_path(request("model.varshift", method="revert"))


def test_pipes_and_devices_are_not_replaced(folder):
    """--overwrite replaces files, and nothing else."""
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        output_path(request("pipe"))
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)


def test_ordinary_places_are_accepted(folder):
    """The default, a new name, and an old output with --overwrite."""
    (folder / "old.pt").write_bytes(b"old")
    assert output_path(request()).name == "model.fixed.pt"
    assert output_path(request(method="revert")).name == "model.reverted.pt"
    assert output_path(request("old.pt")).name == "old.pt"
    assert len(written_files(request("old.pt"))) == 2


@pytest.mark.parametrize(
    "options",
    [
        ["fix", "model.pt", "--recalibrate", "-o", "out.json", "--report", "out.json"],
        ["fix", "model.pt", "--dry-run", "--arch-arg", "c=@c.json", "--report", "c.json"],
        ["scan", "model.pt", "--arch-arg", "c=@c.json", "--report", "c.json"],
    ],
)
def test_reports_do_not_take_the_place_of_files(folder, options):
    """Exit 2 before any work, and every file as it was."""
    (folder / "c.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "varshift_cli", *options, "-q"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(DIGITS.parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "this file is" in done.stderr
    assert (folder / "c.json").read_text() == "{}"
    assert not (folder / "out.json").exists()


def test_all_that_names_a_file_is_known():
    """Every option that reads a file is in the list, in either folder."""
    scan = ScanRequest(
        "d/m.pt", forward="f.py:f", metric="s.py:f", noise=("n.py:N",), train_data="t"
    )
    reads = {path.name for path in files_read(scan)}
    assert {"m.pt", "f.py", "s.py", "n.py", "t"} <= reads


def test_the_first_use_leaves_the_users_random_numbers():
    """Importing a room on first use draws nothing from the user's generator."""
    code = (
        "import random, varshift_cli\nrandom.seed(0)\nvarshift_cli.scan\nprint(random.random())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == random.Random(0).random()  # noqa: S311 - the very generator
