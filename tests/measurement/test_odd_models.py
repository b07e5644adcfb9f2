"""Models that do unusual things: wrapped, compiled, calling autograd, keeping state."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from varshift_cli import recalibrate, scan
from varshift_cli.errors import UsageError, VarshiftError
from varshift_cli.pipeline import scan_checkpoint
from varshift_cli.records import Report, ScanRequest


class Plain(nn.Module):
    """Linear, BN, ReLU, dropout, Linear, BN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn1 = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.4)
        self.second, self.bn2 = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.second(self.drop(torch.relu(self.bn1(self.first(x))))))
        return out


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = Plain(), reentrant

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class Nested(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


class OutOfInference(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False):
            return super().forward(x.clone()).clone()


class Differentiating(Plain):
    """Adds a gradient of nothing to its input."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((self.first(y) * 0.0).sum(), y)
        return super().forward(x + gradient)


@dataclasses.dataclass
class Answer:
    logits: Tensor
    extra: Tensor


class InDataclass(Plain):
    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return Answer(out, out.mean())


class InTuple(Plain):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), {"x": x}


class Pair(NamedTuple):
    out: Tensor
    rest: tuple[Tensor, ...]


class InNamedTuple(Plain):
    def forward(self, x: Tensor) -> Any:
        return Pair(super().forward(x), (x,))


class WithTargets(Plain):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        out = super().forward(x)
        return out if targets is None else functional.cross_entropy(out, targets)


@pytest.fixture(scope="module")
def data() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(64, 6)


def same_weights(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def figures(report: Report) -> list[tuple[Any, ...]]:
    return [(each.shift, each.factors.dropout, each.factors.inherited) for each in report.layers]


WRAPPED = {
    "DataParallel": lambda: nn.DataParallel(Plain()),
    "compiled": lambda: torch.compile(Plain()),
    "compiled, eager backend": lambda: torch.compile(Plain(), backend="eager"),
    "compiled inside": lambda: Nested(torch.compile(Plain(), backend="eager")),
    "checkpointed": lambda: Checkpointed(reentrant=False),
    "checkpointed, reentrant": lambda: Checkpointed(reentrant=True),
    "scripted": lambda: torch.jit.script(Plain().eval()),
    "leaves inference mode": OutOfInference,
    "calls autograd": Differentiating,
    "dataclass": InDataclass,
    "tuple": InTuple,
    "named tuple": InNamedTuple,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", WRAPPED)
def test_the_same_figures_however_it_is_wrapped(name: str, data: Tensor) -> None:
    """Shift and factors are those of the plain model to 1e-5; repaired as well."""
    batches = data.split(16)
    expected = figures(scan(same_weights(Plain), batches))
    model = same_weights(WRAPPED[name])
    found = scan(model, batches)
    # Out of inference mode the masks are others, as they are drawn within the module.
    rel = 0.15 if name in ("leaves inference mode", "calls autograd") else 1e-5
    for one, other in zip(figures(found), expected, strict=True):
        assert one[1] == pytest.approx(other[1], rel=rel)
        assert one[::2] == pytest.approx(other[::2], rel=1e-5)
    assert found.skipped == ()
    assert len(found.dropouts) == 1
    assert recalibrate(model, batches).residual < 1e-5


class Penalised(Plain):
    """Its features are a gradient that went through BatchNorm."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            loss = self.bn1(self.first(y)).square().sum()
            (gradient,) = torch.autograd.grad(loss, y)
        out: Tensor = self.bn2(self.second(self.drop(functional.pad(gradient, (0, 2)))))
        return out


@pytest.mark.parametrize("size", [64, 16])
def test_gradients_through_batch_norm(size: int, data: Tensor) -> None:
    """C of a layer fed by a gradient is that of repairing layer by layer by hand, in float64."""
    model = same_weights(Penalised)
    report = scan(model, data.split(size), channels=True)
    assert "functional dropout" in report.unknown["dropouts"]
    hand = same_weights(Penalised).double()
    expected = []
    for bn in (hand.bn1, hand.bn2):
        caught: list[Tensor] = []
        handle = bn.register_forward_pre_hook(
            lambda _module, args, caught=caught: caught.append(args[0].detach())
        )
        hand(data.double())
        handle.remove()
        bn.running_mean.copy_(caught[0].mean(0))
        bn.running_var.copy_(caught[0].var(0))
        expected.append(bn.running_var.clone())
    for layer, var in zip(report.layers, expected, strict=True):
        clean = torch.tensor(layer.channels.clean_var, dtype=torch.float64)
        torch.testing.assert_close(clean, var, rtol=1e-4, atol=1e-9)
    assert report.layers[1].factors.dropout < 0.95
    assert recalibrate(model, data.split(size)).residual < 1e-4


def test_forward_that_takes_targets(data: Tensor) -> None:
    """Labels are kept back; ``forward`` may hand them in."""
    batches = [(x, torch.zeros(16, dtype=torch.int64)) for x in data.split(16)]
    expected = figures(scan(same_weights(Plain), data.split(16)))
    model = same_weights(WithTargets)
    assert figures(scan(model, batches)) == expected

    def call(net: nn.Module, batch: Any) -> Any:
        x, targets = batch
        return net(x, targets)

    # What a batch holds decides groups and masks; here that is the labels as well.
    found = np.array(figures(scan(model, batches, forward=call)))
    np.testing.assert_allclose(found[:, 0], np.array(expected)[:, 0], rtol=1e-2)
    np.testing.assert_allclose(found[:, 1], np.array(expected)[:, 1], rtol=0.1)


class ByBatch(Plain):
    """One of two layers by the batch, and a loop as long as the data say."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.bn1(self.first(x)))
        return self.bn2(y) if float(x.mean()) > 0 else self.other(y)


def test_control_flow_that_depends_on_the_data(data: Tensor) -> None:
    """Measured layer by layer, attributed, repaired; each layer by the batches that visit it."""
    torch.manual_seed(0)
    x = torch.cat([data[:32] + 1, data[32:] - 1])
    model = ByBatch().eval()
    report = scan(model, x.split(16))
    assert {layer.name for layer in report.layers} == {"bn1", "bn2", "other"}
    assert report.calibration.method == "layer by layer"
    assert recalibrate(model, x.split(16)).residual < 1e-5


def test_a_model_on_several_devices_is_refused(data: Tensor) -> None:
    """Weights that lie nowhere, or on two devices, are named."""
    model = Plain().eval()
    model.bn2.to("meta")
    with pytest.raises(UsageError, match=r"'bn2.weight' is on the meta device"):
        scan(model, data.split(16))


class Stateful(Plain):
    """Sets, counts, appends, replaces a buffer, and changes torch's defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.sums = {"calls": 0}
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.cache = x
        self.seen.append(len(x))
        self.sums["calls"] += 1
        self.count = self.count + 1
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        random.random()  # noqa: S311
        np.random.rand()  # noqa: NPY002
        out = super().forward(x)
        if len(self.seen) > self.sums.get("fail at", 10**6):
            raise RuntimeError("that is enough")
        return out


def ledger(model: nn.Module) -> dict[str, Any]:
    """All that a scan might leave behind."""
    return {
        "flags": [module.training for module in model.modules()],
        "classes": [type(module) for module in model.modules()],
        "buffers": [(name, id(b), b.clone()) for name, b in model.named_buffers()],
        "attributes": [
            {k: (id(v), repr(v)) for k, v in vars(m).items() if not k.startswith("_")}
            for m in model.modules()
        ],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "torch": torch.get_rng_state(),
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "mha": torch.backends.mha.get_fastpath_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
    }


def assert_same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, value in enumerate(one):
            assert_same(value, other[index], f"{where}.{index}")
    else:
        assert one == other, where


class Interrupting:
    """Ctrl-C in the middle of a stage."""

    def __init__(self, stage: str) -> None:
        self.wanted, self.stage = stage, ""

    def start(self, stage: str, total: int) -> None:
        self.stage = stage

    def advance(self, steps: int = 1) -> None:
        if self.stage.startswith(self.wanted):
            raise KeyboardInterrupt

    def finish(self) -> None:
        pass


ENDINGS: dict[str, tuple[int, str | None, type[BaseException] | None]] = {
    "a whole scan": (10**6, None, None),
    "the first forward raises": (0, None, VarshiftError),
    "a late forward raises": (14, None, VarshiftError),
    "Ctrl-C in the eval pass": (10**6, "eval pass", KeyboardInterrupt),
    "Ctrl-C in the clean pass": (10**6, "clean pass", KeyboardInterrupt),
    "Ctrl-C in the train pass": (10**6, "train pass", KeyboardInterrupt),
}


@pytest.mark.parametrize("build", [Stateful, lambda: nn.Sequential(Stateful())], ids=["", "inside"])
@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_is_left_behind(name: str, build: Callable[[], nn.Module], data: Tensor) -> None:
    """After every ending model and torch are as before, whatever the forward itself changed."""
    fail_at, stage, error = ENDINGS[name]
    model = build()
    for index, module in enumerate(model.modules()):
        module.training = index % 2 == 0
        if isinstance(module, Stateful):
            module.sums["fail at"] = fail_at
    before = ledger(model)
    progress = None if stage is None else Interrupting(stage)
    if error is None:
        scan(model, data.split(16), progress=progress)
    else:
        with pytest.raises(error):
            scan(model, data.split(16), progress=progress)
    assert_same(before, ledger(model))


def test_a_lazy_layer_stays_lazy(data: Tensor) -> None:
    """A lazy layer whose buffers were loaded is handed back with its class and its hooks."""
    model = nn.Sequential(nn.LazyBatchNorm1d())
    model.load_state_dict(nn.Sequential(nn.BatchNorm1d(6)).state_dict())
    before = ledger(model)
    assert len(scan(model, data.split(16)).layers) == 1
    assert_same(before, ledger(model))
    model.train()(data)
    assert type(model[0]) is nn.BatchNorm1d


def test_a_plain_model_does_not_load_the_compiler() -> None:
    """A scan of a model that is not compiled leaves torch._dynamo, a second's import, alone."""
    code = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from varshift_cli import recalibrate, scan\n"
        "net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))\n"
        "scan(net, [torch.randn(16, 4)] * 2)\n"
        "recalibrate(net, [torch.randn(16, 4)] * 2)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def fused_on_the_cpu() -> Iterator[None]:
    """TorchScript fuses on CUDA; asked for it, on the CPU as well."""
    llvm, on_cpu = torch._C._jit_set_te_must_use_llvm_cpu, torch._C._jit_override_can_fuse_on_cpu
    before = torch._C._jit_can_fuse_on_cpu(), torch._C._jit_texpr_fuser_enabled()
    llvm(False)
    on_cpu(True)
    torch._C._jit_set_texpr_fuser_enabled(True)
    yield
    llvm(True)
    on_cpu(before[0])
    torch._C._jit_set_texpr_fuser_enabled(before[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("fused_on_the_cpu")
@pytest.mark.parametrize("used", [True, False])
def test_torchscript_that_is_fused(used: bool) -> None:
    """A traced net whose BN the fuser swallows, before the scan or in it: all BN are seen."""
    torch.manual_seed(0)
    x = torch.randn(48, 3, 9, 9)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Dropout(0.3)),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid()),
    ).eval()
    traced: Any = torch.jit.trace(net, x[:8])
    before = fused(traced, x[:8]) if used else None
    plain, found = scan(net, list(x.split(16))), scan(traced, list(x.split(16)))
    assert [layer.name for layer in found.layers] == ["1", "5"]
    for one, other in zip(plain.layers, found.layers, strict=True):
        assert one.shift == pytest.approx(other.shift, rel=1e-5)
    if used:
        assert before
        assert fused(traced, x[:8])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_that_is_frozen(tmp_path: Path) -> None:
    """It has no BatchNorm left, in memory or in a file: what to give instead is said."""
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    frozen = torch.jit.freeze(torch.jit.trace(net, torch.randn(4, 6)))
    with pytest.raises(VarshiftError, match=r"frozen(.|\n)*before torch.jit.freeze"):
        scan(frozen, [torch.randn(4, 6)])
    frozen.save(str(tmp_path / "frozen.pt"))
    with pytest.raises(VarshiftError, match=r"frozen(.|\n)*before torch.jit.freeze"):
        scan_checkpoint(ScanRequest(str(tmp_path / "frozen.pt"), data="x.npz"))


def fused(traced: Any, x: Tensor) -> bool:
    """Whether the fuser swallows BN once the net has been run a few times."""
    with torch.inference_mode(), Seen() as seen:
        for _ in range(3):
            seen.ops.clear()
            traced(x)
    return not any("batch_norm" in op for op in seen.ops)


class Seen(TorchDispatchMode):
    """Names of ops as they arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops.add(str(func))
        return func(*args, **(kwargs or {}))
