"""A small net and the files that people make of it, for the tests of loading."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


class Net(nn.Module):
    """Linear, BN, dropout, Linear, BN; (N, 3) -> (N, 2)."""

    def __init__(self, width: int = 4, p: float = 0.5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(p))
        self.head = nn.Linear(width, 2)
        self.bn = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.head(self.body(x)))
        return out


def net(seed: int = 0, width: int = 4) -> Net:
    """A net whose every tensor, BN buffers too, differs from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    made = Net(width)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.dtype.is_floating_point:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.fill_(7)
    return made


ARCH = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, p=0.5):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(p))
        self.head = nn.Linear(width, 2)
        self.bn = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.bn(self.head(self.body(x)))
"""


def write(kind: str, path: Path, made: nn.Module | None = None) -> Path:
    """Save the net the way its kind says; the suffix is the caller's."""
    made = net() if made is None else made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        if kind == "zip":
            torch.save(made.state_dict(), path)
        elif kind == "legacy":
            torch.save(made.state_dict(), path, _use_new_zipfile_serialization=False)
        elif kind == "safetensors":
            save_file(made.state_dict(), path)
        elif kind == "module":
            torch.save(made, path)
        elif kind == "legacy module":
            torch.save(made, path, _use_new_zipfile_serialization=False)
        elif kind == "scripted":
            torch.jit.script(made).save(str(path))
        elif kind == "traced":
            torch.jit.trace(made.eval(), torch.ones(4, 3)).save(str(path))
        elif kind == "exported":
            program = torch.export.export(made.eval(), (torch.ones(4, 3),))
            torch.export.save(program, path.with_suffix(".pt2"))
            path.with_suffix(".pt2").rename(path)
        else:
            raise ValueError(kind)
    return path


KINDS = (
    "zip",
    "legacy",
    "safetensors",
    "module",
    "legacy module",
    "scripted",
    "traced",
    "exported",
)
CONTAINERS = {
    "legacy module": "module",
    "scripted": "torchscript",
    "traced": "torchscript",
}


def read_back(kind: str, path: Path) -> dict[str, Tensor]:
    """The file's tensors by the library that wrote it, not by us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if kind in {"scripted", "traced"}:
            return dict(torch.jit.load(str(path)).state_dict())
        if kind == "exported":
            return dict(torch.export.load(path).module().state_dict())
        loaded = torch.load(path, weights_only="module" not in kind)
        return dict(loaded.state_dict() if "module" in kind else loaded)


def digest(path: Path) -> str:
    """SHA-256 of a file, the plain way."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def zip_with(path: Path, data_pkl: bytes, *, scripted: bool = False, **records: bytes) -> Path:
    """A torch zip made by hand: any pickle, any records; passes for TorchScript if wanted."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/byteorder", "little")
        for key, data in records.items():
            archive.writestr(f"archive/data/{key.lstrip('k')}", data)
        archive.writestr("archive/version", "3\n")
        if scripted:
            archive.writestr("archive/constants.pkl", b"\x80\x02).")
    return path


class TensorClaim:
    """Pickles as a call of ``torch._utils._rebuild_tensor_v2`` with any figures."""

    def __init__(
        self,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        offset: int = 0,
        key: str = "0",
        count: int = 4,
    ) -> None:
        self.figures = (offset, size, stride)
        self.storage = ("storage", torch.FloatStorage, key, "cpu", count)


class ClaimPickler(pickle._Pickler):
    """Writes :class:`TensorClaim` as torch writes tensors."""

    def persistent_id(self, obj):
        return obj if isinstance(obj, tuple) and obj[:1] == ("storage",) else None

    def reducer_override(self, obj):
        if isinstance(obj, TensorClaim):
            offset, size, stride = obj.figures
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, (obj.storage, offset, size, stride, False, {})
        return NotImplemented
