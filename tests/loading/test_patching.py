from __future__ import annotations

import copy
import errno
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from tests.loading.files import KINDS, digest, net, read_back, write
from varshift_cli.errors import CheckpointError, WriteError
from varshift_cli.loading import open_checkpoint

NEW = {
    "bn.running_mean": torch.tensor([0.25, -3.0]),
    "bn.running_var": torch.tensor([7.5, 1e-3]),
    "body.1.running_var": torch.tensor([9.0, 8.0, 7.0, 6.5]),
}


def patch(source: Path, output: Path, buffers=NEW, **options):
    """Patch with the usual options."""
    options = {"key": None, "overwrite": False, **options}
    return open_checkpoint(source).patch(output, buffers, **options)


def differing(one: Path, two: Path) -> list[int]:
    """Offsets of the bytes that differ, by comparing the files plainly."""
    a, b = one.read_bytes(), two.read_bytes()
    assert len(a) == len(b)
    return [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]


@pytest.mark.parametrize("kind", KINDS)
def test_a_patched_file_loads_the_ordinary_way(tmp_path, kind):
    """The writing library reads the new values, and every other tensor as before."""
    source = write(kind, tmp_path / "m.pt")

    record = patch(source, tmp_path / "fixed.pt")

    expected = read_back(kind, source) | NEW
    found = read_back(kind, tmp_path / "fixed.pt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert record.changed_tensors == len(NEW)
    assert record.changed_bytes == len(differing(source, tmp_path / "fixed.pt"))
    assert record.sha256 == digest(tmp_path / "fixed.pt")
    assert record.notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_tensors_bytes_and_checksums_differ(tmp_path, kind):
    """Every differing byte belongs to a patched tensor, or is one of its two checksums."""
    source = write(kind, tmp_path / "m.pt")
    patch(source, tmp_path / "fixed.pt")

    after = (tmp_path / "fixed.pt").read_bytes()
    allowed: set[int] = set()
    for value in NEW.values():
        place = after.index(value.numpy().tobytes())
        allowed |= set(range(place, place + 4 * value.numel()))
        if kind not in {"legacy", "legacy module", "safetensors"}:
            checksum = struct.pack("<I", zipfile.crc32(value.numpy().tobytes()))
            at = after.find(checksum)
            while at >= 0:
                allowed |= set(range(at, at + 4))
                at = after.find(checksum, at + 1)
    assert set(differing(source, tmp_path / "fixed.pt")) <= allowed


def test_zip_tools_find_no_fault_with_a_patched_file(tmp_path):
    """Checksums hold in the directory, and in the descriptors after the data."""
    patch(write("zip", tmp_path / "m.pt"), tmp_path / "fixed.pt")

    with zipfile.ZipFile(tmp_path / "fixed.pt") as archive:
        assert archive.testzip() is None
        data = (tmp_path / "fixed.pt").read_bytes()
        for info in archive.infolist():
            name, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
            end = info.header_offset + 30 + name + extra + info.file_size
            assert data[end : end + 8] == b"PK\x07\x08" + struct.pack("<I", info.CRC)


@pytest.mark.parametrize("force_zip64", [True, False])
def test_zips_of_other_writers_are_patched(tmp_path, force_zip64):
    """Checksums in local headers, zip64 sizes and archive comments are handled."""
    with (
        zipfile.ZipFile(write("zip", tmp_path / "m.pt")) as old,
        zipfile.ZipFile(tmp_path / "other.pt", "w") as new,
    ):
        new.comment = b"made elsewhere"
        for name in old.namelist():
            with new.open(name, "w", force_zip64=force_zip64) as member:
                member.write(old.read(name))

    patch(tmp_path / "other.pt", tmp_path / "fixed.pt")

    with zipfile.ZipFile(tmp_path / "fixed.pt") as archive:
        assert archive.testzip() is None
    assert torch.equal(
        read_back("zip", tmp_path / "fixed.pt")["bn.running_var"], NEW["bn.running_var"]
    )


def test_compressed_files_are_refused(tmp_path):
    """What is compressed cannot be patched in place; nothing is written."""
    with (
        zipfile.ZipFile(write("zip", tmp_path / "m.pt")) as old,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))

    with pytest.raises(WriteError, match="compressed"):
        patch(tmp_path / "small.pt", tmp_path / "fixed.pt")
    assert not (tmp_path / "fixed.pt").exists()


def test_optimizer_epoch_and_foreign_objects_stay(tmp_path):
    """A training checkpoint keeps all that is beside the state dict."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(8, 3)).sum().backward()
    optimizer.step()
    stored = {
        "model": model.state_dict(),
        "opt": optimizer.state_dict(),
        "epoch": 5,
        "p": Path("x"),
    }
    torch.save(stored, tmp_path / "m.pt")

    patch(tmp_path / "m.pt", tmp_path / "fixed.pt")

    found = torch.load(tmp_path / "fixed.pt", weights_only=False)
    assert found["epoch"] == 5
    assert found["p"] == Path("x")
    for index, state in stored["opt"]["state"].items():
        for name, value in state.items():
            assert torch.equal(found["opt"]["state"][index][name], value)
    assert torch.equal(found["model"]["bn.running_mean"], NEW["bn.running_mean"])


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_are_rounded_to_the_stored_type(tmp_path, kind, dtype):
    """bf16 and fp16 files keep their type; that values were rounded is said."""
    source = write(kind, tmp_path / "m.pt", net().to(dtype))
    value = torch.tensor([1.0001, 3.14159265])

    record = patch(source, tmp_path / "fixed.pt", {"bn.running_var": value})

    found = read_back(kind, tmp_path / "fixed.pt")["bn.running_var"]
    assert torch.equal(found, value.to(dtype))
    assert found.dtype == dtype
    assert bool(record.notes) == (dtype != torch.float64)


def test_integers_and_scalars_are_patched(tmp_path):
    """num_batches_tracked is a 0-d int64."""
    source = write("zip", tmp_path / "m.pt")

    patch(source, tmp_path / "fixed.pt", {"bn.num_batches_tracked": torch.tensor(123)})

    assert read_back("zip", tmp_path / "fixed.pt")["bn.num_batches_tracked"] == 123


def test_strided_buffers_are_patched(tmp_path):
    """A running_var that is a column of something larger is written through its stride."""
    block = torch.arange(8.0).reshape(4, 2)
    torch.save({"bn.running_var": block[:, 1], "n": torch.tensor(1)}, tmp_path / "m.pt")
    new = torch.tensor([9.0, 8.0, 7.0, 6.0])

    record = patch(tmp_path / "m.pt", tmp_path / "fixed.pt", {"bn.running_var": new})

    found = torch.load(tmp_path / "fixed.pt")["bn.running_var"]
    assert torch.equal(found, new)
    assert torch.equal(found._base if found._base is not None else found, new)
    assert record.changed_tensors == 1


def test_the_same_values_change_nothing(tmp_path):
    """Patching with what is there already gives the same file."""
    source = write("zip", tmp_path / "m.pt")

    record = patch(source, tmp_path / "fixed.pt", {"bn.running_var": net().bn.running_var})

    assert (record.changed_bytes, record.changed_tensors) == (0, 0)
    assert digest(source) == digest(tmp_path / "fixed.pt")


@pytest.mark.parametrize("new_format", [True, False])
def test_a_buffer_that_shares_bytes_with_another_tensor_is_refused(tmp_path, new_format):
    """Two names, overlapping bytes: both are named, nothing is written."""
    block = torch.rand(6)
    stored = {"bn.running_var": block[:4], "head.weight": block[2:]}
    torch.save(stored, tmp_path / "m.pt", _use_new_zipfile_serialization=new_format)

    with pytest.raises(WriteError, match=r"'bn.running_var' shares its bytes with 'head.weight'"):
        patch(tmp_path / "m.pt", tmp_path / "fixed.pt", {"bn.running_var": torch.ones(4)})
    assert not (tmp_path / "fixed.pt").exists()


def test_neighbours_in_one_storage_are_no_obstacle(tmp_path):
    """All buffers in one flat storage are patched each in its own place."""
    flat = torch.arange(6.0)
    stored = {"a.running_mean": flat[:2], "a.running_var": flat[2:4], "b.weight": flat[4:]}
    torch.save(stored, tmp_path / "m.pt")

    patch(tmp_path / "m.pt", tmp_path / "fixed.pt", {"a.running_var": torch.tensor([8.0, 9.0])})

    found = torch.load(tmp_path / "fixed.pt")
    assert [v.tolist() for v in found.values()] == [[0, 1], [8, 9], [4, 5]]


@pytest.mark.parametrize("kind", ["zip", "module"])
def test_a_module_registered_twice_changes_under_both_names(tmp_path, kind):
    """An exact alias is the same buffer: it is patched, and said."""
    model = net()
    model.tied = model.bn
    source = write(kind, tmp_path / "m.pt", model)

    record = patch(source, tmp_path / "fixed.pt", {"bn.running_var": torch.tensor([5.0, 6.0])})

    found = read_back(kind, tmp_path / "fixed.pt")
    assert found["tied.running_var"].tolist() == [5.0, 6.0]
    assert any("tied.running_var" in note for note in record.notes)


def test_ema_that_is_the_very_same_tensors_is_said(tmp_path):
    """Raw and EMA weights that share storage change together."""
    state = net().state_dict()
    torch.save({"state_dict": state, "state_dict_ema": copy.copy(state)}, tmp_path / "m.pt")

    record = patch(tmp_path / "m.pt", tmp_path / "fixed.pt")

    assert any("state_dict_ema.bn.running_var" in note for note in record.notes)


def test_two_buffers_over_the_same_bytes_must_agree(tmp_path):
    """Different values for one place are refused rather than one of them lost."""
    model = net()
    model.tied = model.bn
    source = write("zip", tmp_path / "m.pt", model)
    buffers = {"bn.running_var": torch.tensor([5.0, 6.0]), "tied.running_var": torch.ones(2)}

    with pytest.raises(WriteError, match="shares its bytes"):
        patch(source, tmp_path / "fixed.pt", buffers)
    buffers["tied.running_var"] = buffers["bn.running_var"]
    patch(source, tmp_path / "fixed.pt", buffers)


@pytest.mark.parametrize(
    ("buffers", "says"),
    [
        ({"bn.running_var": torch.ones(3)}, r"shape \(3,\), the file holds \(2,\)"),
        ({"nothing": torch.ones(3)}, "no tensor 'nothing'"),
        ({"bn.running_var": torch.tensor([1.0, float("nan")])}, "not finite"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, buffers, says):
    """Wrong shapes, unknown names and NaN never reach a file."""
    source = write("zip", tmp_path / "m.pt")

    with pytest.raises(WriteError, match=says):
        patch(source, tmp_path / "fixed.pt", buffers)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.pt"]


def test_values_too_large_for_the_stored_type_are_refused(tmp_path):
    """A variance of 1e6 does not fit fp16."""
    source = write("zip", tmp_path / "m.pt", net().half())

    with pytest.raises(WriteError, match="float16, which cannot hold"):
        patch(source, tmp_path / "fixed.pt", {"bn.running_var": torch.tensor([1e6, 1.0])})


def test_an_existing_file_is_kept_unless_told(tmp_path):
    """Without overwrite another file is never replaced; with it, it is."""
    source = write("zip", tmp_path / "m.pt")
    (tmp_path / "fixed.pt").write_text("mine")

    with pytest.raises(WriteError, match="exists already") as caught:
        patch(source, tmp_path / "fixed.pt")
    assert "--overwrite" in caught.value.hint
    assert (tmp_path / "fixed.pt").read_text() == "mine"
    patch(source, tmp_path / "fixed.pt", overwrite=True)
    assert read_back("zip", tmp_path / "fixed.pt").keys() == net().state_dict().keys()


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    """Between the check and the end another process may have written there."""
    source = write("zip", tmp_path / "m.pt")
    link = os.link

    def late(*args):
        (tmp_path / "fixed.pt").write_text("theirs")
        link(*args)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(WriteError, match="exists already"):
        patch(source, tmp_path / "fixed.pt")
    assert (tmp_path / "fixed.pt").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 2


def test_file_systems_without_hard_links_work(tmp_path, monkeypatch):
    """Where os.link fails the name is claimed and then replaced."""

    def fail(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", fail)
    source = write("zip", tmp_path / "m.pt")

    patch(source, tmp_path / "fixed.pt")

    assert sorted(e.name for e in tmp_path.iterdir()) == ["fixed.pt", "m.pt"]
    assert torch.load(tmp_path / "fixed.pt")


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("way", ["plain", "link", "dots"])
def test_the_checkpoint_itself_is_never_the_output(tmp_path, overwrite, way):
    """Also not by way of a link or another spelling of its path."""
    source = write("zip", tmp_path / "m.pt")
    before = digest(source)
    (tmp_path / "link.pt").symlink_to(source)
    (tmp_path / "sub").mkdir()
    output = {"plain": source, "link": tmp_path / "link.pt", "dots": tmp_path / "sub/../m.pt"}[way]

    with pytest.raises(WriteError, match="itself"):
        patch(source, output, overwrite=overwrite)
    assert digest(source) == before


def test_an_input_that_changed_is_not_patched(tmp_path):
    """The file that is patched is the file that was measured."""
    source = write("zip", tmp_path / "m.pt")
    checkpoint = open_checkpoint(source)
    write("zip", source, net(seed=1))

    with pytest.raises(WriteError, match="changed"):
        checkpoint.patch(tmp_path / "fixed.pt", NEW, key=None, overwrite=False)
    assert not (tmp_path / "fixed.pt").exists()


def test_an_input_with_the_same_stamp_but_other_bytes_is_not_patched(tmp_path):
    """Where the digest was taken, it must still hold."""
    source = write("zip", tmp_path / "m.pt")
    checkpoint = open_checkpoint(source)
    assert checkpoint.sha256
    stamp = source.stat()
    data = bytearray(source.read_bytes())
    data[-1] ^= 0  # same bytes
    data[data.index(b"3\n")] ^= 1
    with source.open("r+b") as stream:
        stream.write(data)
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    with pytest.raises((WriteError, CheckpointError), match="changed since it was read"):
        checkpoint.patch(tmp_path / "fixed.pt", NEW, key=None, overwrite=False)


def failing(number: int):
    """A function that raises an OSError."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", ["fsync", "link and replace", "mkstemp"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, step):
    """Whichever step fails, the original is untouched and no temporary file stays."""
    source = write("zip", tmp_path / "m.pt")
    before = digest(source)
    with monkeypatch.context() as patched:
        if step == "fsync":
            patched.setattr(os, "fsync", failing(errno.ENOSPC))
        elif step == "mkstemp":
            patched.setattr("tempfile.mkstemp", failing(errno.ENOSPC))
        else:
            patched.setattr(os, "link", failing(errno.EIO))
            patched.setattr(Path, "replace", failing(errno.EIO))
        with pytest.raises(WriteError):
            patch(source, tmp_path / "fixed.pt")

    assert digest(source) == before
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left <= {"m.pt"}


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch):
    """An interrupt in the middle of writing removes the temporary file."""
    source = write("zip", tmp_path / "m.pt")

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            patch(source, tmp_path / "fixed.pt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_is_one_message(tmp_path):
    """The folder that may not be written in is named."""
    source = write("zip", tmp_path / "m.pt")
    folder = tmp_path / "ro"
    folder.mkdir(mode=0o555)

    with pytest.raises(WriteError, match="cannot write in"):
        patch(source, folder / "fixed.pt")


@pytest.mark.parametrize(("output", "says"), [("none/x.pt", "does not exist"), (".", "a folder")])
def test_outputs_that_cannot_be_are_refused(tmp_path, output, says):
    """A missing folder, or a folder in place of a file."""
    source = write("zip", tmp_path / "m.pt")

    with pytest.raises(WriteError, match=says):
        patch(source, tmp_path / output)


def test_permissions_are_those_of_the_original(tmp_path):
    """A temporary file is private; the result is not."""
    source = write("zip", tmp_path / "m.pt")
    source.chmod(0o644)

    patch(source, tmp_path / "fixed.pt")

    assert stat.S_IMODE((tmp_path / "fixed.pt").stat().st_mode) == 0o644


def test_a_faulty_copy_is_never_published(tmp_path, monkeypatch):
    """If the bytes on disk are not what they should be, the output does not appear."""
    source = write("zip", tmp_path / "m.pt")
    fsync = os.fsync

    def corrupt(handle):
        os.pwrite(handle, b"\xff", 70)
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", corrupt)
        with pytest.raises(WriteError, match="differs outside"):
            patch(source, tmp_path / "fixed.pt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


def test_the_key_says_which_group_is_patched(tmp_path):
    """Raw and EMA weights: the one that was measured is the one that is written."""
    torch.save({"model": net(0).state_dict(), "ema": net(1).state_dict()}, tmp_path / "m.pt")

    patch(tmp_path / "m.pt", tmp_path / "fixed.pt", key="ema")

    found = torch.load(tmp_path / "fixed.pt")
    assert torch.equal(found["ema"]["bn.running_var"], NEW["bn.running_var"])
    assert torch.equal(found["model"]["bn.running_var"], net(0).bn.running_var)
