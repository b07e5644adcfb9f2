"""A fix is whole or not at all: every way of ending badly leaves the original as it was."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.nets import ConvNet, warmed_up
from varshift_cli import CheckpointError, FixDeclinedError, UsageError, VarshiftError, WriteError
from varshift_cli.loading import own_sidecar, sidecar_path
from varshift_cli.loading.containers import replacing
from varshift_cli.pipeline import fix_checkpoint
from varshift_cli.records import FixRequest, ScanRequest

MODEL = """
from tests.nets import ConvNet
"""


def nan_first(model: nn.Module) -> None:
    """A NaN in a buffer that will be written: it must come back as it was."""
    model.bn1.running_var[0] = float("nan")


def write_model(kind: str, path: Path) -> None:
    torch.manual_seed(0)
    model = warmed_up(ConvNet(), torch.randn(64, 3, 6, 6))
    state = model.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "bf16":
        torch.save(
            {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}, path
        )
    elif kind == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif kind == "scripted":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(model).save(path)
    elif kind == "exported":
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        program = torch.export.export(model, (torch.randn(4, 3, 6, 6),), dynamic_shapes=shapes)
        torch.export.save(program, path.with_suffix(".pt2"))
        path.with_suffix(".pt2").replace(path)
    elif kind == "module":
        torch.save(model, path)
    elif kind == "nested":
        torch.save({"epoch": 3, "model": state, "args": [1, 2]}, path)
    elif kind == "nan":
        nan_first(model)
        torch.save(model.state_dict(), path)
    else:
        torch.save(state, path)


KINDS = ("zip", "nested", "legacy", "safetensors", "bf16", "scripted", "exported", "module", "nan")
WITH_CODE = ("scripted", "exported", "module")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(1)
    np.savez(tmp_path / "calib.npz", x=torch.randn(80, 3, 6, 6).numpy())
    (tmp_path / "code.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write_model("zip", tmp_path / "m.pt")
    return tmp_path


def request(
    model: str = "m.pt", *, method: str = "recalibrate", kind: str = "zip", **options: object
) -> FixRequest:
    """A fix; files that bring their own code are run by it."""
    arch = None if kind in WITH_CODE else "code.py:ConvNet"
    scan = ScanRequest(model, arch=arch, data="calib.npz", allow_pickle=kind == "module")
    return FixRequest(scan, method=method, **options)  # type: ignore[arg-type]


def digest(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_place", [False, True])
def test_revert_is_exact_to_the_bit(folder: Path, kind: str, in_place: bool) -> None:
    """In every container: fix, revert, and the file is the old one, byte for byte."""
    write_model(kind, folder / "net.pt")
    before = digest("net.pt")
    record = fix_checkpoint(request("net.pt", kind=kind, in_place=in_place))
    assert record.output == ("net.pt" if in_place else "net.fixed.pt")
    assert digest(record.output) != before
    assert record.output_sha256 == digest(record.output)
    assert (digest("net.pt") == before) is not in_place
    assert Path(record.sidecar or "") == sidecar_path(Path(record.output))
    assert own_sidecar(Path(record.output), digest(record.output)) is not None
    back = fix_checkpoint(request(record.output, method="revert", in_place=in_place))
    assert (back.status, back.output_sha256) == ("reverted", before)
    assert digest(back.output or "") == before
    assert not [name for name in contents(folder) if name.endswith((".tmp", ".original"))]
    assert Path(record.sidecar or "").exists() is not in_place


def test_dry_run_writes_nothing(folder: Path) -> None:
    """--dry-run does all but write, for a fix and for a revert."""
    before = contents(folder)
    record = fix_checkpoint(request(dry_run=True))
    assert (record.status, record.chosen) == ("dry_run", "recalibrate")
    assert contents(folder) == before
    fix_checkpoint(request())
    before = contents(folder)
    assert fix_checkpoint(request("m.fixed.pt", method="revert", dry_run=True)).output is None
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "m.pt"}, "is the checkpoint itself"),
        ({"output": "m.pt", "overwrite": True}, "is the checkpoint itself"),
        ({"output": "there.pt"}, "there.pt is already there"),
        ({"output": "nowhere/m.pt"}, "output folder nowhere does not exist"),
        ({"output": "x.pt", "in_place": True}, "two places"),
        ({"output": "kept.pt"}, "keeps the old buffers of an earlier repair"),
    ],
)
def test_bad_places_are_refused_before_any_work(
    folder: Path, options: dict[str, object], message: str
) -> None:
    """The input, a file that is there, a missing folder, another file's sidecar: said at once."""
    (folder / "there.pt").write_text("mine", encoding="utf-8")
    (folder / "kept.varshift").write_text("notes of my own", encoding="utf-8")
    before = contents(folder)
    with pytest.raises(UsageError, match=message):
        fix_checkpoint(request(**options))
    assert contents(folder) == before


def test_output_may_be_a_folder(folder: Path) -> None:
    """A folder as output gets the default name inside it."""
    (folder / "out").mkdir()
    assert fix_checkpoint(request(output="out")).output == "out/m.fixed.pt"


def test_in_place_never_follows_a_link(folder: Path) -> None:
    """What a symbolic link points to is not replaced behind its back."""
    (folder / "link.pt").symlink_to("m.pt")
    with pytest.raises(UsageError, match="symbolic link"):
        fix_checkpoint(request("link.pt", in_place=True))


@pytest.mark.parametrize("name", ["m.fixed.pt", "m.fixed.varshift"])
def test_disk_full(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No room for the file or for its sidecar: a clear error, nothing written, nothing lost."""
    before = contents(folder)
    fsync = os.fsync

    def full(handle: int) -> None:
        if name in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        fix_checkpoint(request())
    assert contents(folder) == before


def test_read_only_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be written is refused before any work."""
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(UsageError, match="cannot be written"):
        fix_checkpoint(request())


@pytest.mark.parametrize("in_place", [False, True])
def test_file_replaced_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    """Another process saves over the checkpoint during the fix: its file stays, nothing else."""
    write_model("nested", folder / "newer.pt")
    newer = digest("newer.pt")
    carry_out = fix_checkpoint.__globals__["carry_out"]

    def and_meanwhile(*args: object) -> object:
        done = carry_out(*args)
        shutil.copy("newer.pt", "saved.tmp")
        Path("saved.tmp").replace("m.pt")
        return done

    monkeypatch.setitem(fix_checkpoint.__globals__, "carry_out", and_meanwhile)
    with pytest.raises(VarshiftError, match="changed since"):
        fix_checkpoint(request(in_place=in_place))
    assert digest("m.pt") == newer
    assert set(contents(folder)) == {"m.pt", "newer.pt", "calib.npz", "code.py"}


def test_in_place_that_does_not_read_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that lies: the original returns to its place."""
    before = digest("m.pt")
    monkeypatch.setattr(replacing, "digest_of", lambda _path: "0" * 64)
    with pytest.raises(WriteError, match="did not read back"):
        fix_checkpoint(request(in_place=True))
    assert digest("m.pt") == before


def test_an_original_left_behind_is_never_overwritten(folder: Path) -> None:
    """The original that an interrupted repair left beside is not lost to the next one."""
    (folder / "m.pt.original").write_text("an older original", encoding="utf-8")
    before = contents(folder)
    with pytest.raises(WriteError, match="interrupted repair"):
        fix_checkpoint(request(in_place=True))
    after = contents(folder)
    assert {name: after[name] for name in before} == before


def test_sidecar_missing_or_of_another_file(folder: Path) -> None:
    """No sidecar, a damaged one, that of another file: said, and nothing written."""
    fix_checkpoint(request())
    sidecar = folder / "m.fixed.varshift"
    good = sidecar.read_bytes()
    for damage, message in (
        (None, "there is no"),
        (b"", "damaged"),
        (good[: len(good) // 2], "damaged"),
        (b"\x00" * 64, "damaged"),
    ):
        sidecar.unlink(missing_ok=True)
        if damage is not None:
            sidecar.write_bytes(damage)
        with pytest.raises(CheckpointError, match=message):
            fix_checkpoint(request("m.fixed.pt", method="revert"))
    sidecar.write_bytes(good)
    shutil.copy("m.pt", "m.fixed.pt")
    before = contents(folder)
    with pytest.raises(CheckpointError, match="belongs to another file"):
        fix_checkpoint(request("m.fixed.pt", method="revert"))
    assert contents(folder) == before


def test_a_sidecar_whose_file_never_came_is_in_nobodys_way(folder: Path) -> None:
    """What a killed repair may leave does not keep the next one from running."""
    fix_checkpoint(request())
    (folder / "m.fixed.pt").unlink()
    assert fix_checkpoint(request()).status == "written"


def test_revert_refuses_what_would_not_be_the_old_file(folder: Path) -> None:
    """A sidecar with other values than the old ones: found out before anything is written."""
    from safetensors import safe_open

    fix_checkpoint(request())
    sidecar = folder / "m.fixed.varshift"
    with safe_open(sidecar, "pt") as file:
        metadata = file.metadata()
        buffers = {name: file.get_tensor(name) + 1 for name in file.keys()}  # noqa: SIM118
    save_file(buffers, sidecar, metadata)
    before = contents(folder)
    with pytest.raises(WriteError, match="not the old one"):
        fix_checkpoint(request("m.fixed.pt", method="revert"))
    assert contents(folder) == before


def test_never_updated_without_labels_is_refused(folder: Path) -> None:
    """Buffers at 0 and 1: every method declines without labels; --force writes."""
    torch.manual_seed(3)
    torch.save(ConvNet().state_dict(), "fresh.pt")
    for method in ("auto", "recalibrate", "correct"):
        with pytest.raises(FixDeclinedError, match="they are right"):
            fix_checkpoint(request("fresh.pt", method=method))
    assert fix_checkpoint(request("fresh.pt", force=True)).status == "written"
