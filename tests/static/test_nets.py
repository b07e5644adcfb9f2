import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.static.files import healthy, linted
from varshift_cli.errors import CheckpointError, NothingToMeasureError
from varshift_cli.static import lint_checkpoint


def test_only_batch_norm_is_read(tmp_path):
    """Of a file with large weights only the header and the BN tensors are read."""
    state = healthy() | {"head.weight": torch.zeros(1000, 1000)}

    report = linted(state, tmp_path)

    bn = sum(
        value.numel() * value.element_size() for name, value in state.items() if ".bn." in name
    )
    assert report.file_bytes > 4_000_000
    assert bn < report.bytes_read < bn + 4096
    assert report.tensors == 19


def test_zip_reads_only_batch_norm(tmp_path):
    """So it is for a file of torch.save; its directory and pickle come on top."""
    state = healthy() | {"head.weight": torch.zeros(1000, 1000)}

    report = linted(state, tmp_path, name="model.pt")

    assert report.file_bytes > 4_000_000
    assert report.bytes_read < 100_000


def test_containers_agree(tmp_path):
    """The same state dict tells the same in every container."""
    state = healthy()
    state["body.1.bn.running_var"][0] = float("nan")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    reports = [
        linted(state, tmp_path),
        linted(state, tmp_path, name="model.pt"),
        lint_checkpoint(str(tmp_path / "old.pt")),
    ]

    assert [each.container for each in reports] == ["safetensors", "zip", "legacy"]
    assert reports[0].layers == reports[1].layers == reports[2].layers
    assert reports[0].findings == reports[1].findings == reports[2].findings


def test_pickled_module_is_not_run(tmp_path):
    """A whole pickled module is looked into without unpickling it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(model, tmp_path / "module.pt")

    assert [layer.name for layer in lint_checkpoint(str(tmp_path / "module.pt")).layers] == ["1"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(tmp_path, dtype):
    """Half and double precision are read as their values."""
    state = {"bn.running_mean": torch.tensor([0.5, -2.0]), "bn.running_var": torch.tensor([1.5, 3])}
    save_file({name: value.to(dtype) for name, value in state.items()}, tmp_path / "a.safetensors")

    (layer,) = lint_checkpoint(str(tmp_path / "a.safetensors")).layers

    assert (layer.variance_low, layer.variance_high, layer.mean_largest) == (1.5, 3.0, 2.0)


def test_unreadable_type_is_skipped(tmp_path):
    """A layer stored in a type that is not read is skipped, with the reason."""
    state = {
        "bn.running_mean": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "bn.running_var": torch.ones(2),
    }
    save_file(state, tmp_path / "a.safetensors")

    report = lint_checkpoint(str(tmp_path / "a.safetensors"))

    assert report.layers == ()
    assert "F8_E4M3" in report.skipped[0].reason


def test_order(tmp_path):
    """Layers come as the network numbers them: 10 behind 9."""
    report = linted(healthy(layers=11), tmp_path)

    assert [layer.name for layer in report.layers][8:] == ["body.8.bn", "body.9.bn", "body.10.bn"]


def test_nothing(tmp_path):
    """A file without BN buffers exits 3 and says what was looked for."""
    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")

    with pytest.raises(NothingToMeasureError, match="none of them named running_mean"):
        lint_checkpoint(str(tmp_path / "a.safetensors"))


def test_key(tmp_path):
    """--key picks one state dict; a safetensors file has none."""
    torch.save({"model": healthy(), "ema": healthy(seed=1)}, tmp_path / "a.pt")
    assert len(lint_checkpoint(str(tmp_path / "a.pt"), "ema").layers) == 3

    save_file(healthy(), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="a safetensors file holds tensors only"):
        lint_checkpoint(str(tmp_path / "a.safetensors"), "ema")
