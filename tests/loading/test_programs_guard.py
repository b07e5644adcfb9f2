"""Exported programs and TorchScript archives that would run or write something when loaded."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.loading.files import write
from varshift_cli.errors import CheckpointError
from varshift_cli.loading import open_checkpoint


class Bait:
    """Unpickles as a call that creates a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def rewritten(path: Path, change) -> Path:
    """The archive with some members replaced: ``change(name, data) -> data``."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            new.writestr(name, change(name, data))
    return path


def edited_graph(path: Path, edit) -> Path:
    """The archive with its graph's JSON changed by ``edit(graph)``."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        graph = json.loads(data)
        edit(graph)
        return json.dumps(graph).encode()

    return rewritten(path, change)


def _first_node(graph):
    return graph["graph_module"]["graph"]["nodes"][0]


def _rename_input(graph, name):
    inputs = graph["graph_module"]["graph"]["inputs"]
    inputs[-1]["as_tensor"]["name"] = name


EDITS = {
    "a dangerous function": lambda g, s: _first_node(g).update(target="torch.hub.load"),
    "a library": lambda g, s: _first_node(g).update(target="torch.ops.load_library"),
    "a dunder": lambda g, s: _first_node(g).update(target="torch.ops.aten.add.__init__"),
    "a file": lambda g, s: _first_node(g).update(target="torch.ops.aten.from_file.default"),
    "sympy": lambda g, s: g["graph_module"]["graph"]["sym_int_values"].update(
        x={"as_expr": {"expr_str": f"__import__('os').system('touch {s}')", "hint": None}}
    ),
    "sympy call": lambda g, s: g["graph_module"]["graph"]["sym_int_values"].update(
        x={"as_expr": {"expr_str": "exec('x')", "hint": None}}
    ),
    "sympy attribute": lambda g, s: g["graph_module"]["graph"]["sym_int_values"].update(
        x={"as_expr": {"expr_str": "Symbol('x').__class__", "hint": None}}
    ),
    "a guard": lambda g, s: g.update(guards_code=["__import__('os').getcwd()"]),
    "a name in the source": lambda g, s: _rename_input(
        g, f"x=__import__('os').system('touch {s}')"
    ),
    "a spec": lambda g, s: _set_deep(g, "in_spec", '[1, {"type": "x(__import__)"}]'),
}


def _set_deep(value, key, new):
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                value[name] = new
            else:
                _set_deep(item, key, new)
    elif isinstance(value, list):
        for item in value:
            _set_deep(item, key, new)


@pytest.mark.parametrize("name", sorted(EDITS))
def test_graphs_that_name_foreign_code_are_refused(tmp_path, name):
    """Operators, expressions, guards and names are checked before torch sees them."""
    sentinel = tmp_path / "ran"
    path = edited_graph(
        write("exported", tmp_path / "m.pt2"), lambda graph: EDITS[name](graph, sentinel)
    )

    with pytest.raises(CheckpointError, match="would run code"):
        open_checkpoint(path).module()

    assert not sentinel.exists()


@pytest.mark.parametrize("member", ["sample_inputs/model.pt", "weights_config", "constants_config"])
def test_pickles_in_an_exported_program_are_refused(tmp_path, member):
    """torch would unpickle them without restriction."""
    sentinel = tmp_path / "ran"
    pickled = io.BytesIO()
    torch.save(Bait(sentinel), pickled)

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("sample_inputs/model.pt") and member.startswith("sample"):
            return pickled.getvalue()
        if name.endswith("weights/weight_0") and member.startswith("weights"):
            return pickled.getvalue()
        if f"{member}.json" in name:
            config = json.loads(data)
            if member.startswith("weights"):
                next(iter(config["config"].values()))["use_pickle"] = True
            else:
                config["config"]["c"] = {
                    "path_name": "opaque_obj_0", "is_param": False, "use_pickle": True,
                    "tensor_meta": None,
                }  # fmt: skip
            return json.dumps(config).encode()
        return data

    path = rewritten(write("exported", tmp_path / "m.pt2"), change)

    with pytest.raises(CheckpointError, match="would run code"):
        open_checkpoint(path).module()

    assert not sentinel.exists()


class Dynamic(nn.Module):
    """Sizes that depend on the batch, a dict input, a keyword input, a tied BN, a plain buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.bn = nn.BatchNorm1d(4)
        self.again = self.bn
        self.register_buffer("hidden", torch.ones(4), persistent=False)

    def forward(self, x, *, k, d):
        out = self.again(self.bn(self.linear(x)))[: x.shape[0] // 2]
        return {"out": out + k + d["a b"] * self.hidden, "n": x.flatten().max()}


def test_ordinary_programs_pass(tmp_path):
    """Dynamic shapes, nested inputs and outputs are no reason to refuse."""
    half = torch.export.Dim("half", min=2, max=50)
    program = torch.export.export(
        Dynamic(),
        (torch.rand(6, 3),),
        {"k": torch.ones(4), "d": {"a b": torch.ones(4)}},
        dynamic_shapes={"x": {0: 2 * half}, "k": None, "d": {"a b": None}},
    )
    torch.export.save(program, tmp_path / "m.pt2")

    module = open_checkpoint(tmp_path / "m.pt2").module()

    out = module(torch.rand(8, 3), k=torch.ones(4), d={"a b": torch.ones(4)})
    assert out["out"].shape == (4, 4)


def test_torchscript_that_writes_files_is_refused(tmp_path):
    """``torch.save`` inside TorchScript could write anywhere; with permission it loads."""

    class Writer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "ran")
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Writer()).save(str(tmp_path / "m.pt"))

    with pytest.raises(CheckpointError, match="reads or writes files"):
        open_checkpoint(tmp_path / "m.pt").module()
    assert open_checkpoint(tmp_path / "m.pt", allow_pickle=True).module() is not None


def test_a_broken_program_is_one_message(tmp_path):
    """Whatever torch raises on a damaged graph becomes a CheckpointError."""
    path = edited_graph(
        write("exported", tmp_path / "m.pt2"),
        lambda graph: graph["graph_module"]["graph"].pop("inputs"),
    )

    with pytest.raises(CheckpointError, match="cannot load"):
        open_checkpoint(path).module()


def test_sample_pickles_do_bite_in_torch_itself(tmp_path):
    """The control: a bait in a pickle runs where it is trusted."""
    pickle.loads(pickle.dumps(Bait(tmp_path / "ran")))

    assert (tmp_path / "ran").exists()
