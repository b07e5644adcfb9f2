"""Every kind of BatchNorm: measured right, or skipped with the reason; none silently missing."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from varshift_cli import recalibrate, scan
from varshift_cli.records import Report


class Functional(nn.Module):
    """F.batch_norm with buffers under the user's own names."""

    def __init__(self, channels: int, mean: str = "mean", var: str = "var") -> None:
        super().__init__()
        self.names = mean, var
        self.register_buffer(mean, torch.zeros(channels))
        self.register_buffer(var, torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = (getattr(self, name) for name in self.names)
        return functional.batch_norm(x, mean, var, training=self.training, momentum=0.1)


class BatchNormAct2d(nn.BatchNorm2d):
    """A subclass that calls the functional form itself, as in timm."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training
        )
        return functional.relu(x)


class FrozenBatchNorm2d(nn.Module):
    """Arithmetic on buffers, as in torchvision; frozen for good."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.rand(channels) + 0.5)
        self.register_buffer("bias", torch.randn(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        scale = self.weight.reshape(shape) * (self.running_var.reshape(shape) + self.eps).rsqrt()
        out: Tensor = (
            x * scale + self.bias.reshape(shape) - self.running_mean.reshape(shape) * scale
        )
        return out


class HandWritten(nn.Module):
    """BN as one writes it to learn it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-3
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.running_mean.lerp_(mean.detach(), 0.1)
            self.running_var.lerp_(var.detach(), 0.1)
        shape = (1, -1, 1, 1)
        normal = (x - mean.view(shape)) / (var.view(shape) + self.eps).sqrt()
        return normal * self.weight.view(shape) + self.bias.view(shape)


class Whitening(HandWritten):
    """Holds running statistics, but does something else with them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x - self.running_mean.view(1, -1, 1, 1))


class Double(nn.Module):
    """Runs its statistics through a cast at every call."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = Cast(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(x)
        return out


class Cast(nn.BatchNorm2d):
    """Half-precision statistics, cast to float at every call."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.half()

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x, self.running_mean.float(), self.running_var.float(), None, None, self.training
        )


def stack(bn: nn.Module, *, after: nn.Module | None = None) -> nn.Module:
    """conv, dropout, the BN at hand, ReLU, conv, an ordinary BN."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.Dropout(0.4),
        bn,
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.BatchNorm2d(4) if after is None else after,
    )


def images(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(64, 3, 8, 8) + 0.3


MEASURED = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(6),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(6),
    "momentum None": lambda: nn.BatchNorm2d(6, momentum=None),
    "without affine": lambda: nn.BatchNorm2d(6, affine=False),
    "subclass": lambda: BatchNormAct2d(6),
    "functional": lambda: Functional(6),
    "functional, other names": lambda: Functional(6, "bn_mean", "bn_var"),
    "hand-written": lambda: HandWritten(6),
}


def by_hand(model: nn.Module, x: Tensor) -> Tensor:
    """Variance of what enters the third layer, in float64."""
    with torch.no_grad():
        inputs: Tensor = model[0](x).double()
    return inputs.movedim(1, -1).flatten(0, -2).var(0)


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("size", [64, 7])
def test_kinds_that_are_measured_and_repaired(kind: str, size: int) -> None:
    """Named by its owner, E by hand to 1e-5, repaired to a residual below 1e-5, none missing."""
    x = images()
    model = stack(MEASURED[kind]()).eval()
    report = scan(model, x.split(size), channels=True)
    name = "2.bn" if kind == "functional, other names" else "2"
    assert [layer.name for layer in report.layers] == [name, "5"]
    assert report.skipped == ()
    assert [link.name for link in report.layers[0].dropouts] == ["1"]
    eval_var = torch.tensor(report.layers[0].channels.eval_var)
    torch.testing.assert_close(eval_var.double(), by_hand(model, x), rtol=1e-5, atol=0)
    plain = stack(nn.BatchNorm2d(6, eps=report.layers[0].eps), after=model[5]).eval()
    plain[0], plain[4] = model[0], model[4]
    if kind != "subclass":  # it has a ReLU of its own
        expected = scan(plain, x.split(64))
        for one, other in zip(report.layers, expected.layers, strict=True):
            assert one.factors.dropout == pytest.approx(other.factors.dropout, rel=1e-5)
            assert one.shift == pytest.approx(other.shift, rel=1e-5)
    record = recalibrate(model, x.split(size))
    assert record.residual < 1e-5
    assert len(record.layers) == 2
    assert record.skipped == ()


def test_names_of_functional_layers() -> None:
    """By the module that owns the buffers, and what the names of mean and variance share."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("bn1_mean", "bn2_mean", "loose"):
                self.register_buffer(name, torch.zeros(3))
            for name in ("bn1_var", "bn2_var"):
                self.register_buffer(name, torch.ones(3))
            self.plain = torch.ones(3)
            self.sub = Functional(3)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.batch_norm(x, self.bn1_mean, self.bn1_var)
            x = functional.batch_norm(x, self.bn2_mean, self.bn2_var)
            x = self.sub(functional.batch_norm(x, self.loose, self.plain))
            return functional.batch_norm(x, torch.zeros(3), torch.ones(3))

    x = torch.randn(40, 3)
    report = scan(Two().eval(), x.split(8))
    names = [layer.name for layer in report.layers]
    assert names == ["bn1", "bn2", "loose", "sub", "batch_norm#1"]
    record = recalibrate(Two().eval(), x.split(8))
    assert [layer.name for layer in record.layers] == ["bn1", "bn2", "sub"]
    told = [(each.name, "no buffers" in each.reason) for each in record.skipped]
    assert told == [("loose", True), ("batch_norm#1", True)]


def test_frozen_look_alikes_are_measured_and_left_alone() -> None:
    """E and R are measured, T and C go by its own buffers, and only on request is it written."""
    x = images()
    model = stack(FrozenBatchNorm2d(6)).eval()
    report = scan(model, x.split(9), channels=True)
    assert [layer.name for layer in report.layers] == ["2", "5"]
    assert [layer.kind for layer in report.layers] == ["FrozenBatchNorm2d", "BatchNorm2d"]
    torch.testing.assert_close(
        torch.tensor(report.layers[0].channels.eval_var).double(),
        by_hand(model, x),
        rtol=1e-5,
        atol=0,
    )
    # Behind it C is E: nothing above the second layer would be written.
    assert report.layers[1].factors.inherited == pytest.approx(1.0, rel=1e-5)
    before = model[2].running_var.clone()
    record = recalibrate(model, x.split(9))
    assert [layer.name for layer in record.layers] == ["5"]
    assert [(each.name, "--include-frozen" in each.reason) for each in record.skipped] == [
        ("2", True)
    ]
    assert record.residual < 1e-5
    assert torch.equal(model[2].running_var, before)
    thawed = recalibrate(model, x.split(9), include_frozen=True)
    assert [layer.name for layer in thawed.layers] == ["2", "5"]
    assert thawed.residual < 1e-5
    torch.testing.assert_close(model[2].running_var.double(), by_hand(model, x), rtol=1e-5, atol=0)


def test_what_is_no_batch_norm_is_never_written() -> None:
    """Running statistics used in another way are measured, never normalised by, never written."""
    x = images()
    model = stack(Whitening(6)).eval()
    report = scan(model, x.split(9))
    assert [layer.name for layer in report.layers] == ["2", "5"]
    record = recalibrate(model, x.split(9), include_frozen=True)
    assert [layer.name for layer in record.layers] == ["5"]
    assert "something else" in record.skipped[0].reason
    assert record.residual < 1e-5


def test_half_precision_statistics_cast_at_every_call() -> None:
    """Buffers that reach the op as a copy are still known by the module they belong to."""
    report = scan(Double(3).eval(), images().split(9))
    assert [layer.name for layer in report.layers] == ["bn"]


RANKS = {
    "(N, C)": (nn.BatchNorm1d(3), (64, 3)),
    "(N, C, L)": (nn.BatchNorm1d(3), (64, 3, 5)),
    "(N, C, H, W)": (nn.BatchNorm2d(3), (64, 3, 5, 4)),
    "(N, C, D, H, W)": (nn.BatchNorm3d(3), (64, 3, 4, 3, 2)),
}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_ranks_and_precisions(rank: str, dtype: torch.dtype) -> None:
    """E of every input rank in every precision is the float64 variance of what entered."""
    bn, shape = RANKS[rank]
    torch.manual_seed(0)
    x = (torch.randn(shape) * 2 + 1).to(dtype)
    model = nn.Sequential(type(bn)(3)).to(dtype).eval()
    (layer,) = scan(model, x.split(13), channels=True).layers
    expected = x.double().movedim(1, -1).flatten(0, -2).var(0)
    torch.testing.assert_close(
        torch.tensor(layer.channels.eval_var, dtype=torch.float64), expected, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_repaired_as_far_as_its_digits_go(dtype: torch.dtype) -> None:
    """Buffers of half precision are written rounded; the residual is that rounding."""
    x = images().to(dtype)
    record = recalibrate(stack(nn.BatchNorm2d(6)).to(dtype).eval(), x.split(16))
    assert len(record.layers) == 2
    assert record.residual < 2 * torch.finfo(dtype).eps


def reasons(report: Report) -> dict[str, str]:
    return {each.name: each.reason for each in report.skipped}


def test_what_is_skipped_says_why() -> None:
    """Without statistics, lazy, InstanceNorm, never reached, in a thread, functional: each told."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)
            self.untracked = nn.BatchNorm2d(3, track_running_stats=False)
            self.instance = nn.InstanceNorm2d(3, track_running_stats=True)
            self.unreached = nn.BatchNorm2d(3)
            self.threaded = nn.BatchNorm2d(3)
            self.batch = nn.BatchNorm2d(3)
            self.lazy = nn.LazyBatchNorm2d()

        def forward(self, x: Tensor) -> Tensor:
            from threading import Thread

            x = self.instance(self.untracked(self.bn(x)))
            found: list[Tensor] = []

            @torch.inference_mode()
            def work() -> None:
                found.append(self.threaded(x))

            thread = Thread(target=work)
            thread.start()
            thread.join()
            b = self.batch
            x = functional.batch_norm(
                found[0].clone(), b.running_mean, b.running_var, training=True
            )
            return functional.batch_norm(x, None, None, training=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: lazy modules are new
        model = Odd().eval()
    report = scan(model, images().split(16))
    assert [layer.name for layer in report.layers] == ["bn"]
    found = reasons(report)
    assert set(found) == {"untracked", "instance", "unreached", "threaded", "batch", "lazy", ""}
    assert "no running statistics" in found["untracked"]
    assert "single samples" in found["instance"]
    assert found["unreached"] == "no batch reached it"
    assert "thread" in found["threaded"]
    assert "by the batch even in eval()" in found["batch"]
    assert "lazy" in found["lazy"]
    assert "no running statistics" in found[""]


def test_shared_modules_and_shared_buffers() -> None:
    """One module of two names is one layer called twice; two modules with one buffer are told."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.BatchNorm2d(3)
            self.again = self.first
            self.alias = nn.BatchNorm2d(3)
            self.alias.running_mean = self.first.running_mean
            self.alias.running_var = self.first.running_var

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.alias(self.again(self.first(x)))
            return out

    model = Shared().eval()
    report = scan(model, images().split(16))
    assert [layer.name for layer in report.layers] == ["first#1", "first#2", "first#3"]
    assert reasons(report) == {"alias": "shares its running statistics with 'first'"}
    with pytest.raises(Exception, match="called 3 times"):
        recalibrate(model, images().split(16))


def test_without_num_batches_tracked() -> None:
    """An old checkpoint's layer without the counter is a layer like any other."""
    bn = nn.BatchNorm2d(6)
    del bn.num_batches_tracked
    bn.register_buffer("num_batches_tracked", None)
    assert recalibrate(stack(bn).eval(), images().split(16)).residual < 1e-5


def test_lazy_layers_that_were_run_are_layers() -> None:
    """A lazy layer is measured once its buffers exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = stack(nn.LazyBatchNorm2d())
    model(images())
    assert [layer.name for layer in scan(model, images().split(16)).layers] == ["2", "5"]
