"""What people wrap around a state dict, from the file through scan and fix to a file again."""

from __future__ import annotations

import argparse
import pathlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.nets import OneNet, warmed_up
from varshift_cli.errors import CheckpointError, UsageError
from varshift_cli.pipeline import fix_checkpoint, inspect_checkpoint, scan_checkpoint
from varshift_cli.records import FixRequest, ScanRequest

ARCH = f"{Path(__file__).parents[1] / 'nets.py'}:OneNet"


@pytest.fixture
def net(tmp_path):
    """A net that has seen data, and the data in a file."""
    torch.manual_seed(0)
    x = torch.randn(96, 3, 6, 6)
    np.savez(tmp_path / "calib.npz", x=x.numpy())
    return warmed_up(OneNet(0.3), x)


def request_of(path: Path, **more: object) -> ScanRequest:
    given = {"arch": ARCH, "data": str(path.parent / "calib.npz"), **more}
    return ScanRequest(str(path), **given)


def fix(request: ScanRequest, output: Path | None = None):
    return fix_checkpoint(
        FixRequest(request, "recalibrate", output=None if output is None else str(output))
    )


def test_lightning(net, tmp_path):
    """hyper_parameters fill the arguments of --arch, prefixes go, all else in the file stays."""
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    extra = {"hyper_parameters": {"p": 0.3, "lr": 1e-3}, "epoch": 7, "loops": {"a": [1]}}
    torch.save({"state_dict": state, **extra}, tmp_path / "epoch7.ckpt")
    request = request_of(tmp_path / "epoch7.ckpt")

    assert scan_checkpoint(request).checkpoint.arch.endswith("OneNet(p=0.3)")
    record = fix(request)

    written = torch.load(tmp_path / "epoch7.fixed.ckpt", weights_only=True)
    assert record.changed_buffers == 8
    assert {name: written[name] for name in extra} == extra
    assert written["state_dict"].keys() == state.keys()


def test_timm(net, tmp_path):
    """What weights_only refuses is read; raw weights are taken beside EMA, and that is said."""
    averaged = {name: value.clone() + 1 for name, value in net.state_dict().items()}
    args = argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("x"))
    whole = {"state_dict": net.state_dict(), "state_dict_ema": averaged, "args": args}
    torch.save({**whole, "metric": np.float64(0.5)}, tmp_path / "best.pth.tar")
    request = request_of(tmp_path / "best.pth.tar")

    report = scan_checkpoint(request)
    fix(request, tmp_path / "out.pth.tar")

    assert report.checkpoint.key == "state_dict"
    assert any("raw taken; --key state_dict_ema" in note for note in report.notes)
    assert report.notes == inspect_checkpoint(request).notes
    written = torch.load(tmp_path / "out.pth.tar", weights_only=False)
    assert written["args"] == args
    for name, value in written["state_dict_ema"].items():
        assert torch.equal(value, averaged[name])
    changed = [name for name, value in written["state_dict"].items()
               if not torch.equal(value, net.state_dict()[name])]  # fmt: skip
    assert len(changed) == 8


def test_a_hugging_face_folder(net, tmp_path):
    """The folder's weights file is meant, and what is written goes beside it."""
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    request = request_of(folder, data=str(tmp_path / "calib.npz"))

    record = fix(request)

    assert record.output == str(folder / "model.fixed.safetensors")
    assert load_file(folder / "model.fixed.safetensors").keys() == net.state_dict().keys()
    again = scan_checkpoint(request_of(folder / "model.fixed.safetensors", data=request.data))
    assert max(each.shift for each in again.layers) < 1.01


@pytest.mark.parametrize("suffix", [".h5", ".th", ".bin", "", ".onnx"])
def test_suffixes_say_nothing(net, tmp_path, suffix):
    """A state dict is one under any name."""
    torch.save({"model": {"sub": net.state_dict()}}, tmp_path / f"weights{suffix}")

    report = scan_checkpoint(request_of(tmp_path / f"weights{suffix}", key="model.sub"))

    assert (report.checkpoint.container, len(report.layers)) == ("zip", 4)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickled_module_is_refused_and_what_to_do_is_said(net, tmp_path, new):
    """Without --allow-pickle nothing of it runs; --arch reads its tensors all the same."""
    path = tmp_path / "net.pt"
    torch.save(net, path, _use_new_zipfile_serialization=new)

    with pytest.raises(CheckpointError, match="would run code that the file names") as refused:
        scan_checkpoint(request_of(path, arch=None))

    assert "--allow-pickle" in (refused.value.hint or "")
    assert "--arch" in (refused.value.hint or "")
    assert len(scan_checkpoint(request_of(path)).layers) == 4


def test_arguments_without_an_architecture(net, tmp_path):
    """--arch-arg alone is a mistake, and told."""
    torch.save(net.state_dict(), tmp_path / "net.pt")

    with pytest.raises(UsageError, match="no --arch"):
        scan_checkpoint(request_of(tmp_path / "net.pt", arch=None, arch_args=("p=1",)))
