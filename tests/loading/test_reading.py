from __future__ import annotations

import argparse
import collections
import io
import pathlib
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tests.loading.files import (
    CONTAINERS,
    KINDS,
    ClaimPickler,
    TensorClaim,
    digest,
    net,
    read_back,
    write,
    zip_with,
)
from varshift_cli.errors import CheckpointError, CheckpointNotFoundError, UsageError
from varshift_cli.loading import open_checkpoint, open_model


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_reads_as_its_own_library_reads_it(tmp_path, kind):
    """Names and values are those that torch or safetensors give, whatever the suffix."""
    path = write(kind, tmp_path / "weights.dat")

    checkpoint = open_checkpoint(path)
    found = dict(checkpoint.state_dict().tensors)

    expected = read_back(kind, path)
    assert checkpoint.container == CONTAINERS.get(kind, kind)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    assert checkpoint.sha256 == digest(path)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool,
        torch.complex64, torch.int16, torch.float8_e4m3fn, torch.uint32,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_element_type_reads_bit_for_bit(tmp_path, kind, dtype):
    """A tensor of any type comes back with the bits that were stored."""
    bits = torch.arange(16, dtype=torch.uint8) % 2
    stored = bits.view(torch.bool) if dtype is torch.bool else bits.view(dtype)
    if kind == "legacy" and dtype in {torch.float8_e4m3fn, torch.uint32}:
        pytest.skip("torch itself cannot write this")
    path = tmp_path / "x.pt"
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"t": stored}, path)
    else:
        torch.save({"t": stored}, path, _use_new_zipfile_serialization=kind == "zip")

    found = open_checkpoint(path).state_dict().tensors["t"]

    assert found.dtype == dtype
    assert torch.equal(found.reshape(-1).view(torch.uint8), bits)


@pytest.mark.parametrize("new", [True, False])
def test_views_strides_and_shared_storages_are_followed(tmp_path, new):
    """Transposed, sliced, expanded, 0-d and empty tensors read as torch reads them."""
    base = torch.arange(24.0).reshape(4, 6)
    stored = {
        "transposed": base.t(),
        "column": base[:, 2],
        "rest": base[1:, ::2],
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
    }
    torch.save(stored, tmp_path / "x", _use_new_zipfile_serialization=new)

    found = open_checkpoint(tmp_path / "x").state_dict().tensors

    assert all(torch.equal(found[name], stored[name]) for name in stored)
    assert all(found[name].shape == stored[name].shape for name in stored)


def test_what_weights_only_refuses_is_read_all_the_same(tmp_path):
    """A timm-like checkpoint with a Namespace, paths, numpy numbers and stubs gives its tensors."""
    checkpoint = {
        "state_dict": net().state_dict(),
        "args": argparse.Namespace(lr=0.1),
        "path": pathlib.PurePosixPath("x"),
        "metric": np.float64(0.5),
        "history": collections.defaultdict(list, a=[1]),
        "rng": np.random.RandomState(0).get_state(),
    }
    torch.save(checkpoint, tmp_path / "x.pth.tar")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "x.pth.tar", weights_only=True)

    state = open_checkpoint(tmp_path / "x.pth.tar").state_dict()

    assert state.key == "state_dict"
    assert torch.equal(state.tensors["bn.running_var"], net().bn.running_var)


def test_parameters_and_subclasses_are_plain_tensors(tmp_path):
    """Parameters, parameters with attributes and buffers in one dict all read."""
    parameter = nn.Parameter(torch.ones(3))
    parameter.note = "mine"
    torch.save({"p": parameter, "q": nn.Parameter(torch.zeros(2))}, tmp_path / "x")

    found = open_checkpoint(tmp_path / "x").state_dict().tensors

    assert torch.equal(found["p"], torch.ones(3))
    assert type(found["q"]) is torch.Tensor


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (lambda: torch.ones(3).to_sparse(), "sparse"),
        (lambda: torch.empty(3, device="meta"), "meta"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj(), "conjugated"),
    ],
)
def test_tensors_of_kinds_not_read_are_named_when_asked_for(tmp_path, stored, kind):
    """A sparse tensor elsewhere in the file does not keep the others from being read."""
    torch.save({"odd": stored(), "plain": torch.ones(2)}, tmp_path / "x")
    tensors = open_checkpoint(tmp_path / "x").state_dict().tensors

    assert torch.equal(tensors["plain"], torch.ones(2))
    with pytest.raises(CheckpointError, match=f"'odd'.*{kind}"):
        tensors["odd"]


def test_files_without_checksums_are_read_and_patched(tmp_path):
    """torch can be told to write no checksums; such a file is not damaged."""
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save({"bn.running_var": torch.ones(3)}, tmp_path / "x")
    finally:
        torch.serialization.set_crc32_options(before)
    checkpoint = open_checkpoint(tmp_path / "x")

    checkpoint.patch(tmp_path / "y", {"bn.running_var": torch.zeros(3)}, key=None, overwrite=False)

    assert torch.equal(torch.load(tmp_path / "y")["bn.running_var"], torch.zeros(3))


def test_pickled_modules_are_not_run_unless_allowed(tmp_path):
    """The refusal names the class; the tensors can be read all the same; permission loads it."""
    path = write("module", tmp_path / "m.pt")

    refused = open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"whole pickled module.*files\.Net") as caught:
        refused.module()
    allowed = open_model(open_checkpoint(path, allow_pickle=True))

    assert "--allow-pickle" in caught.value.hint
    assert "--arch" in caught.value.hint
    assert torch.equal(refused.state_dict().tensors["bn.bias"], net().bn.bias)
    assert torch.equal(allowed.model.bn.bias, net().bn.bias)
    assert allowed.names["bn.bias"] == "bn.bias"


def test_a_module_inside_a_dict_is_found(tmp_path):
    """``{"model": module}``, as some training scripts write, is a module at the key ``model``."""
    torch.save({"epoch": 3, "model": net()}, tmp_path / "m.pt")

    checkpoint = open_checkpoint(tmp_path / "m.pt", allow_pickle=True)

    assert checkpoint.container == "module"
    assert checkpoint.state_dict().key == "model"
    assert torch.equal(checkpoint.module().bn.bias, net().bn.bias)


def test_a_module_from_a_script_is_explained(tmp_path):
    """A class that only existed in the saving script is told as such, without a traceback."""
    with zipfile.ZipFile(write("module", tmp_path / "m.pt")) as saved:
        pickled = saved.read("m/data.pkl")
        records = {
            f"k{name.rpartition('/')[2]}": saved.read(name)
            for name in saved.namelist()
            if name.startswith("m/data/")
        }
    moved = pickled.replace(b"tests.loading.files\nNet", b"__main__\nNet")
    assert moved != pickled
    zip_with(tmp_path / "n.pt", moved, **records)

    with pytest.raises(CheckpointError, match="script") as caught:
        open_checkpoint(tmp_path / "n.pt", allow_pickle=True).module()

    assert "--arch" in str(caught.value)


@pytest.mark.parametrize("kind", ["scripted", "traced", "exported"])
def test_programs_need_nothing_to_run(tmp_path, kind):
    """TorchScript and exported programs give a model with the net's own outputs."""
    path = write(kind, tmp_path / "m.bin")
    x = torch.rand(4, 3)

    built = open_model(open_checkpoint(path))

    model = built.model if kind == "exported" else built.model.eval()
    torch.testing.assert_close(model(x), net().eval()(x))
    assert set(built.names) == set(net().state_dict())


def test_a_state_dict_is_no_module(tmp_path):
    """Asking a state dict for its model explains --arch."""
    with pytest.raises(UsageError, match="code of the model"):
        open_checkpoint(write("zip", tmp_path / "x")).module()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x1f\x8b" + bytes(50), "gzip"),
        (b"\x80\x04\x95" + bytes(50), "pickle"),
        (b"hello", "no checkpoint"),
        (b"PK\x03\x04" + bytes(40), "damaged or truncated zip"),
        (b"\x93NUMPY", "numpy"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, content, says):
    """The first bytes tell what a file is instead of a checkpoint."""
    (tmp_path / "x.pt").write_bytes(content)

    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(tmp_path / "x.pt")


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    """The usual builtin catches it too."""
    with pytest.raises(CheckpointNotFoundError, match="no such file"):
        open_checkpoint(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "scripted", "exported", "module"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_told_as_such(tmp_path, kind, share):
    """Cut anywhere, a file is refused with one message; never a half-read model."""
    whole = write(kind, tmp_path / "x").read_bytes()
    (tmp_path / "y").write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(CheckpointError, match=r"truncated|damaged"):
        dict(open_checkpoint(tmp_path / "y").state_dict().tensors)


def test_a_corrupted_record_inside_a_good_zip_is_found(tmp_path):
    """One flipped bit in a tensor's bytes is seen by its checksum."""
    path = write("zip", tmp_path / "x")
    data = bytearray(path.read_bytes())
    data[data.index(net().bn.bias.detach().numpy().tobytes())] ^= 1
    path.write_bytes(data)

    with pytest.raises(CheckpointError, match="checksum"):
        dict(open_checkpoint(path).state_dict().tensors)


def test_compressed_records_are_read(tmp_path):
    """A checkpoint zipped again with compression reads the same."""
    with (
        zipfile.ZipFile(write("zip", tmp_path / "x")) as old,
        zipfile.ZipFile(tmp_path / "y", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))

    found = dict(open_checkpoint(tmp_path / "y").state_dict().tensors)

    assert all(torch.equal(found[name], value) for name, value in net().state_dict().items())


def test_big_endian_files_are_refused(tmp_path):
    """The byteorder record is obeyed."""
    with (
        zipfile.ZipFile(write("zip", tmp_path / "x")) as old,
        zipfile.ZipFile(tmp_path / "y", "w") as new,
    ):
        for name in old.namelist():
            data = b"big" if name.endswith("byteorder") else old.read(name)
            new.writestr(name, data)

    with pytest.raises(CheckpointError, match="'big' byte order"):
        open_checkpoint(tmp_path / "y")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """A record that claims to unpack to a thousand times its size is not touched."""
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b".")
        archive.writestr("a/data/0", bytes(100 * 2**20))

    with pytest.raises(CheckpointError, match=r"zip bomb|not unpacked"):
        open_checkpoint(tmp_path / "x")


def test_a_name_listed_twice_is_refused(tmp_path):
    """Two records of one name would be read differently by different readers."""
    with zipfile.ZipFile(tmp_path / "x", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a/data.pkl", b".")
        archive.writestr("a/data.pkl", b"N.")

    with pytest.raises(CheckpointError, match="twice"):
        open_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("size", "stride", "offset", "count"),
    [
        ((5,), (1,), 0, 4),
        ((4,), (1,), 1, 4),
        ((2**61, 2**61), (1, 1), 0, 4),
        ((10**12,), (0,), 0, 4),
        ((4,), (-1,), 3, 4),
        ((-4,), (1,), 0, 4),
        ((4,), (2**70,), 0, 4),
        ((4,), (1,), -1, 4),
        ((4,), (1,), 2**63, 4),
        ((4, 4), (1,), 0, 4),
        ((8,), (1,), 0, 8),
        ((1,) * 65, (1,) * 65, 0, 4),
    ],
)
def test_impossible_tensor_sizes_are_refused(tmp_path, size, stride, offset, count):
    """Sizes that overflow, run backwards or beyond the record are never believed."""
    buffer = io.BytesIO()
    ClaimPickler(buffer, 2).dump({"t": TensorClaim(size, stride, offset, count=count)})
    path = zip_with(tmp_path / "x", buffer.getvalue(), k0=bytes(16))

    with pytest.raises(CheckpointError, match=r"does not fit|damaged"):
        dict(open_checkpoint(path).state_dict().tensors)


def test_a_record_that_is_missing_is_named(tmp_path):
    """A pickle that points to a record that is not there."""
    buffer = io.BytesIO()
    ClaimPickler(buffer, 2).dump({"t": TensorClaim((4,), (1,), key="9")})
    path = zip_with(tmp_path / "x", buffer.getvalue(), k0=bytes(16))

    with pytest.raises(CheckpointError, match="data/9"):
        dict(open_checkpoint(path).state_dict().tensors)


def test_a_file_that_changes_while_open_is_an_error(tmp_path):
    """A training run that overwrites the file does not give half of each."""
    path = write("zip", tmp_path / "x")
    checkpoint = open_checkpoint(path)
    write("zip", path, net(seed=1))

    with pytest.raises(CheckpointError, match="has changed"):
        dict(checkpoint.state_dict().tensors)


def _safetensors(header: bytes, data: bytes = bytes(16), claim: int | None = None) -> bytes:
    return (len(header) if claim is None else claim).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_safetensors(b'{"a":1}', claim=10**11), "claims"),
        (_safetensors(b"{"), "JSON"),
        (_safetensors(b'{"a":' + b"[" * 50_000), "JSON"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":1}'), "JSON"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "outside"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}'), "16 bytes"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}'), "impossible"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}'), "outside"),
        (_safetensors(b'{"a":{"shape":[4],"data_offsets":[0,16]}}'), "incomplete"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],'
                      b'"data_offsets":[0,16]}}'), "impossible"),
        (_safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
                      b'"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'), "overlap"),
        (b"{", "claims"),
    ],
)  # fmt: skip
def test_a_safetensors_header_is_not_believed(tmp_path, content, says):
    """Sizes, places and JSON of the header are checked against the file first."""
    (tmp_path / "x.safetensors").write_bytes(content)

    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(tmp_path / "x.safetensors")


def test_a_hugging_face_folder_is_its_single_weights_file(tmp_path):
    """Other files of the folder do not matter; shards and rivals are refused by name."""
    write("safetensors", tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    torch.save({}, tmp_path / "training_args.bin")

    assert open_checkpoint(tmp_path).path == tmp_path / "model.safetensors"

    write("zip", tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"several.*model\.safetensors, pytorch_model\.bin"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="shards"):
        open_checkpoint(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    """A folder without weights says so."""
    with pytest.raises(CheckpointError, match="without a weights file"):
        open_checkpoint(tmp_path)
