"""Wrong files, code and data through the whole program: one message, what to do, exit code 2."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.loading.files import ARCH, ClaimPickler, TensorClaim, digest, net, write, zip_with

MODEL = f"""{ARCH}
class Wide(Net):
    def __init__(self):
        super().__init__(9)

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 2)

    def forward(self, x):
        return self.body(x)

class Raises(Net):
    def forward(self, x):
        y = self.head(self.body(x))
        if len(x) < 64:
            raise KeyError("small")
        return self.bn(y)

class Hungry(Net):
    def forward(self, x):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate")

class Overflows(Net):
    def forward(self, x):
        return self.head(self.body(x * float("inf")))

class Prints(Net):
    def __init__(self):
        print("built")
        super().__init__()

    def forward(self, x):
        print("forward")
        return super().forward(x)

class Ends(Net):
    def forward(self, x):
        raise SystemExit(0)

NUMBER = 3

def number():
    return 3

def boom():
    raise ValueError("boom")
""".replace("can't allocate", "can't allocate memory: you tried")

DATA = """
import atexit

import torch

def raises():
    yield torch.zeros(8, 3)
    raise OSError("gone")

def prints():
    atexit.register(print, "at exit")
    print("loader")
    for _ in range(4):
        print("batch")
        yield torch.randn(16, 3), torch.randint(0, 2, (16,))

def metric(outputs, labels):
    print("metric")
    return 1.0

def call(model, batch):
    print("call")
    return model(batch[0])

def nothing():
    return []

def empty():
    return torch.utils.data.TensorDataset(torch.zeros(0, 3))

def bad():
    yield torch.zeros(8, 3)
    x = torch.zeros(8, 3)
    x[3, 1] = float("inf")
    yield x

def words():
    return ["a", "b"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with every kind of bad file."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    (folder / "broken.py").write_text("def (", encoding="utf-8")
    (folder / "text.pt").write_text("no checkpoint at all\n" * 20, encoding="utf-8")
    _checkpoints(folder)
    _arrays(folder)
    return folder


def _checkpoints(folder):
    for kind in ("zip", "legacy", "safetensors", "scripted", "exported", "module"):
        path = write(kind, folder / f"{kind}.pt")
        whole = path.read_bytes()
        (folder / f"{kind}_cut.pt").write_bytes(whole[: len(whole) - 200])
    good = bytearray((folder / "zip.pt").read_bytes())
    weights = net().head.weight.detach().numpy().tobytes()
    good[good.index(weights)] ^= 0xFF
    (folder / "corrupt.pt").write_bytes(good)
    torch.save({"body.weight": torch.zeros(2, 3), "body.bias": torch.zeros(2)}, folder / "plain.pt")
    (folder / "huge.safetensors").write_bytes(struct.pack("<Q", 10**11) + b"{}")
    save_file({"bn.running_mean": torch.zeros(2)}, folder / "part.safetensors")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * 100_000_000)
    pickled = io.BytesIO()
    ClaimPickler(pickled, 2).dump({"running_mean": TensorClaim((2**40, 2**40), (2**40, 1))})
    zip_with(folder / "overflow.pt", pickled.getvalue(), k0=b"\0" * 16)


def _arrays(folder):
    x = np.zeros((100, 3), "float32")
    broken = x.copy()
    broken[17, 2] = np.nan
    arrays = {
        "good": x,
        "shape": np.zeros((100, 5), "float32"),
        "whole": np.zeros((100, 3), "int64"),
        "empty": x[:0],
        "one": x[:1],
        "nan": broken,
        "objects": np.array([{}, None], dtype=object),
    }
    for name, array in arrays.items():
        np.savez(folder / f"{name}.npz", x=array)
    np.save(folder / "objects.npy", arrays["objects"])
    (folder / "text.npz").write_text("hello", encoding="utf-8")
    np.savez_compressed(folder / "bomb.npz", x=np.zeros((25_000_000,), "float32"))
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
    np.lib.format.write_array_header_1_0(header, claim)
    (folder / "huge.npy").write_bytes(header.getvalue() + b"\0" * 64)


GOOD = ("--arch", "model.py:Net", "--data", "good.npz")
ZIP = "zip.pt"


def data(spec):
    return (ZIP, "--arch", "model.py:Net", "--data", spec)


def arch(spec):
    return (ZIP, "--arch", spec, "--data", "good.npz")


CASES = {
    "no such file": (("none.pt", *GOOD), "no such file: none.pt"),
    "a mistyped file": (("zpi.pt", *GOOD), "Did you mean zip.pt?"),
    "no such folder": (("away/zip.pt", *GOOD), "There is no folder away."),
    "mistyped data": (data("goood.npz"), "Did you mean good.npz?"),
    "a mistyped model file": (arch("modell.py:Net"), "Did you mean model.py?"),
    "nothing like it": (arch("model.py:Zebra"), "There are: Ends, Hungry, Net, "),
    "no checkpoint": (("text.pt", *GOOD), "is no checkpoint"),
    "zip cut off": (("zip_cut.pt", *GOOD), "damaged or truncated"),
    "legacy cut off": (("legacy_cut.pt", *GOOD), "damaged or truncated"),
    "safetensors cut off": (("safetensors_cut.pt", *GOOD), "damaged or truncated"),
    "TorchScript cut off": (("scripted_cut.pt", "--data", "good.npz"), "damaged or truncated"),
    "exported cut off": (("exported_cut.pt", "--data", "good.npz"), "damaged or truncated"),
    "a member corrupted": (("corrupt.pt", *GOOD), "does not match its checksum"),
    "zip bomb": (("bomb.pt", *GOOD), "was not unpacked"),
    "100 GB header": (("huge.safetensors", *GOOD), "claims 100,000,000,000 bytes"),
    "sizes that overflow": (("overflow.pt", "--arch", "torch.nn:Identity", "--data", "good.npz"),
                            "unexpected 1 (running_mean)"),
    "a pickled module": (("module.pt", "--data", "good.npz"), "--allow-pickle"),
    "no --arch": ((ZIP, "--data", "good.npz"), "--arch"),
    "neither": ((ZIP,), "--arch and --data are missing: zip.pt holds tensors only"),
    "no --data for a model": (("scripted.pt",), "error: no calibration data: --data is missing"),
    "no --data": ((ZIP, "--arch", "model.py:Net"), "--data is missing"),
    "no such key": ((ZIP, *GOOD, "--key", "ema"), "nothing at --key 'ema'"),
    "no such model file": (arch("none.py:Net"), "there is no file none.py"),
    "no such module": (arch("none.at.all:Net"), "there is no module 'none'"),
    "no such class": (arch("model.py:Nett"), "Did you mean Net?"),
    "broken model file": (arch("broken.py:Net"), "SyntaxError"),
    "no callable": (arch("model.py:NUMBER"), "not a class, function or module"),
    "no module made": (arch("model.py:number"), "not an nn.Module"),
    "a factory that raises": (arch("model.py:boom"), "ValueError: boom"),
    "another shape": (arch("model.py:Wide"),
                      "body.0.weight is (4, 3) in the file, (9, 3) in the model"),
    "another model": (arch("model.py:Plain"), "missing 2 (body.weight, body.bias)"),
    "an unknown argument": ((ZIP, *GOOD, "--arch-arg", "depth=3"), "no parameter 'depth'"),
    "a forward that raises": (arch("model.py:Raises"), "on batch 1"),
    "out of memory": (arch("model.py:Hungry"), "--batch-size"),
    "a forward that ends": (arch("model.py:Ends"), "sys.exit(0)"),
    "data of another shape": (data("shape.npz"), "in layer 'body.0'"),
    "data of another type": (data("whole.npz"), "int64"),
    "empty data": (data("empty.npz"), "is empty"),
    "one sample": (data("one.npz"), "at least 2"),
    "NaN inside": (data("nan.npz"), "sample 17"),
    "no such data": (data("none.npz"), "no data file"),
    "objects in .npz": (data("objects.npz"), "Python objects"),
    "objects in .npy": (data("objects.npy"), "Python objects"),
    "text called .npz": (data("text.npz"), "is no numpy file"),
    "a bomb called .npz": (data("bomb.npz"), "was not unpacked"),
    "a .npy of 40 TB": (data("huge.npy"), ("larger than memory", "not fully written")),
    "a loader that raises": (data("data.py:raises"), "OSError: gone"),
    "an empty loader": (data("data.py:nothing"), "data.py:nothing() is empty: it holds 0 samples"),
    "an empty dataset": (data("data.py:empty"), "data.py:empty() is empty: it holds 0 samples"),
    "infinity in a loader": (data("data.py:bad"), "sample 11"),
    "words": (data("data.py:words"), "batch 0"),
    "CUDA that is absent": ((ZIP, *GOOD, "--device", "cuda"), "finds no CUDA device"),
    "no such device": ((ZIP, *GOOD, "--device", "abacus"), "no such kind of device"),
    "no float64 there": ((ZIP, *GOOD, "--device", "mps"), "float64"),
}  # fmt: skip


@pytest.fixture
def inside(made, monkeypatch):
    monkeypatch.chdir(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield made


def files_in(folder):
    """Name -> digest of every file, hidden ones too."""
    return {each.name: digest(each) for each in folder.iterdir() if each.is_file()}


@pytest.mark.parametrize("command", ["scan", "inspect", "fix"])
@pytest.mark.parametrize("name", CASES)
def test_told(run, inside, command, name):
    """What is wrong is said in a block of its own, exit code 2; nothing is left behind."""
    if "CUDA" in name and torch.cuda.is_available():
        pytest.skip("there is one")
    arguments, told = CASES[name]
    before = files_in(inside)

    more = {"fix": ("--recalibrate",), "inspect": ("--samples", "100", "--batch-size", "64")}
    ended = run(command, *arguments, *more.get(command, ()))

    assert ended.code == 2, ended
    assert ended.out == ""
    words = told if isinstance(told, tuple) else (told,)
    assert any(each in ended.err for each in words)
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in ended.err
    assert "internal" not in ended.err
    assert files_in(inside) == before


@pytest.mark.parametrize("command", ["scan", "inspect", "fix"])
def test_nothing_to_measure(run, inside, command):
    """A model without BatchNorm exits 3."""
    extra = ("--recalibrate",) if command == "fix" else ()

    ended = run(command, "plain.pt", "--arch", "model.py:Plain", "--data", "good.npz", *extra)

    assert (ended.code, ended.out) == (3, "")
    assert "no BatchNorm layer" in ended.err


def test_nothing_measured(run, inside):
    """A network that computes NaN before every BatchNorm exits 3, gated 1; the report says why."""
    scan = ("scan", *arch("model.py:Overflows"), "--format", "json")

    ended, gated = run(*scan), run(*scan, "--max-shift", "1.25")

    assert (ended.code, gated.code) == (3, 1)
    assert ended.err.splitlines()[1:] == [
        "error: nothing to measure: no BatchNorm layer has a shift: a variance is not finite"
    ]
    assert "VS408" in [each["code"] for each in json.loads(ended.out)["findings"]]


@pytest.mark.parametrize("command", ["scan", "inspect", "fix"])
def test_printing_code(inside, command):
    """What the user's code prints goes to stderr, at shutdown too; stdout is the report."""
    more = {
        "scan": ("--metric", "data.py:metric"),
        "inspect": (),
        "fix": ("--metric", "data.py:metric", "--recalibrate", "--force", "--dry-run"),
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "varshift_cli", command, ZIP, "--arch", "model.py:Prints"),
            *("--data", "data.py:prints", "--forward", "data.py:call", "--format", "json"),
            *more[command],
        ],
        capture_output=True, text=True, check=False, cwd=inside,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "sha256" in json.loads(done.stdout)["checkpoint"]
    told = set(done.stderr.splitlines())
    assert told >= {"built", "forward", "loader", "batch", "call", "at exit"}
    assert ("metric" in told) is (command != "inspect")


@pytest.mark.parametrize("setting", ["arch", "data", "forward", "holdout"])
def test_a_strangers_settings_are_named(run, inside, tmp_path, monkeypatch, setting):
    """Code that a settings file names is told before it runs, even if the file asks for quiet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("import sys\nsys.stderr.write('RUN')\nf = 3\n")
    values = {"arch": f"{inside}/model.py:Net", "data": f"{inside}/good.npz"}
    values[setting] = "evil.py:f.pt" if setting == "arch" else "evil.py:f"
    lines = [f'{key} = "{value}"' for key, value in values.items()]
    (tmp_path / "varshift.toml").write_text("\n".join(["quiet = true", *lines]), encoding="utf-8")

    ended = run("fix", inside / "zip.pt", "--recalibrate", "--force", "-o", tmp_path / "o.pt", "-q")

    told, ran = ended.err.index(f"{values[setting]} ("), ended.err.index("RUN")
    assert told < ran


def test_pickles_cannot_be_allowed_by_a_file(run, inside, tmp_path, monkeypatch):
    """allow-pickle counts on the command line alone."""
    monkeypatch.chdir(tmp_path)
    Path("varshift.toml").write_text("allow-pickle = true\n", encoding="utf-8")

    ended = run("scan", inside / "module.pt", "--data", inside / "good.npz")

    assert ended.code == 2
    assert "allow-pickle is not accepted from a file" in ended.err
