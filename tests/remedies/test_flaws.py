"""Flaws of other recalibrators, one test each: here the statistics come out right, or refused.

Every oracle concatenates all that enters a layer in ``eval()``, by plain hooks, and takes mean and
variance (ddof 1) in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import ConvNet, Mlp, captured_inputs, warmed_up
from varshift_cli import DataError, FixDeclinedError, correct, recalibrate, scan


class Single(nn.Module):
    """Dropout straight into one BN."""

    def __init__(self, features: int = 3, p: float = 0.0) -> None:
        super().__init__()
        self.drop, self.bn = nn.Dropout(p), nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.drop(x))
        return out


def check(model: nn.Module, x: Tensor, names: list[str], rtol: float = 1e-5) -> None:
    """Buffers hold what the layers meet in eval()."""
    for name, inputs in captured_inputs(model.eval(), x, names).items():
        bn = model.get_submodule(name)
        scale = float(inputs.std())
        torch.testing.assert_close(
            bn.running_mean.double(), inputs.mean(0), rtol=rtol, atol=1e-6 * scale
        )
        torch.testing.assert_close(
            bn.running_var.double(), inputs.var(0), rtol=rtol, atol=1e-7 * scale**2
        )


def test_dropout_stays_off_while_estimating() -> None:
    """One BN behind Dropout(0.5), input of mean 1 and variance 1: variance 1, not 3."""
    torch.manual_seed(0)
    x = torch.randn(4096, 3) + 1
    model = warmed_up(Single(p=0.5), x, steps=100, size=256)
    assert float(model.bn.running_var.mean()) == pytest.approx(3.0, rel=0.1)
    recalibrate(model, list(x.split(64)))
    check(model, x, ["bn"])
    assert float(model.bn.running_var.mean()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("size", [2, 8, 32, 128])
def test_upstream_layers_normalise_as_in_deployment(size: int) -> None:
    """Twelve BN1d layers at batch 2: the last one is as exact as the first."""
    torch.manual_seed(1)
    x = torch.randn(256, 12) * torch.rand(256, 1).exp()
    model = warmed_up(Mlp(p=0.3, depth=12), x)
    record = recalibrate(model, list(x.split(size)))
    check(model, x, [layer.name for layer in record.layers], rtol=1e-4)


def test_class_sorted_loader() -> None:
    """Batches that differ in their means: the spread between batches counts."""
    torch.manual_seed(2)
    x = torch.cat([torch.randn(64, 3) + 3 * label for label in range(4)])
    model = Single()
    recalibrate(model, list(x.split(64)))
    check(model, x, ["bn"])
    assert float(model.bn.running_var.mean()) > 9


def test_ragged_last_batch() -> None:
    """A last batch of two weighs two samples; one of one is no obstacle."""
    torch.manual_seed(3)
    x = torch.randn(130, 3)
    x[128:] *= 50
    for sizes in ([64, 64, 2], [64, 65, 1]):
        model = Single()
        recalibrate(model, list(x.split(sizes)))
        check(model, x, ["bn"])


@pytest.mark.parametrize("channels_last", [False, True])
def test_large_mean_with_tiny_spread(channels_last: bool) -> None:
    """Mean 1000, variance 1e-4: no cancellation, no negative variance, no NaN in eval()."""
    torch.manual_seed(4)
    # In float32 the spread itself is quantised at such a mean: the oracle sees the same values.
    x = 1000 + 0.01 * torch.randn(128, 4, 6, 6)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    model = nn.Sequential(nn.BatchNorm2d(4))
    recalibrate(model, list(x.split(16)))
    check(model, x, ["0"], rtol=1e-3)
    assert bool(model(x).isfinite().all())
    assert float(model[0].running_var.min()) > 5e-5


def test_unreached_batchnorm_is_left_alone() -> None:
    """An auxiliary head that no batch takes keeps its statistics, to the bit."""

    class Net(Single):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.BatchNorm1d(3)

    model = Net()
    model.aux.running_var.fill_(7.0)
    record = recalibrate(model, [torch.randn(64, 3)])
    assert [(each.name, each.reason) for each in record.skipped] == [("aux", "no batch reached it")]
    assert torch.equal(model.aux.running_var, torch.full((3,), 7.0))


@pytest.mark.parametrize("repair", [recalibrate, correct])
def test_shared_batchnorm(repair: object) -> None:
    """One BN called twice: it keeps its buffers, is named; layers below come out exact."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.shared = nn.Dropout(0.3), nn.BatchNorm1d(3)
            self.last = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.shared(self.drop(self.shared(x)) * 2) + x)
            return out

    torch.manual_seed(5)
    x = torch.randn(256, 3) + 1
    model = warmed_up(Net(), x)
    kept = model.shared.running_var.clone()
    record = repair(model, list(x.split(32)))  # type: ignore[operator]
    assert torch.equal(model.shared.running_var, kept)
    assert "called 2 times" in next(each.reason for each in record.skipped if each.name == "shared")
    assert [layer.name for layer in record.layers] == ["last"]
    if repair is recalibrate:
        check(model, x, ["last"])


@pytest.mark.parametrize("include", [False, True])
def test_frozen_by_a_train_override(include: bool) -> None:
    """A model whose own train() keeps BN in eval: left alone unless asked, flags as found."""

    class Net(Single):
        def train(self, mode: bool = True) -> Net:
            super().train(mode)
            self.bn.eval()
            return self

    torch.manual_seed(6)
    x = torch.randn(128, 3) * 2
    model = Net()
    model.train()
    flags = [module.training for module in model.modules()]
    if include:
        recalibrate(model, [x], include_frozen=True)
        assert [module.training for module in model.modules()] == flags
        check(model, x, ["bn"])
        return
    with pytest.raises(Exception, match="frozen while training"):
        recalibrate(model, [x])
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(model.bn.running_var, torch.ones(3))


def test_sync_batchnorm_on_the_cpu() -> None:
    """SyncBatchNorm in one CPU process: measured and repaired like any BN."""
    torch.manual_seed(7)
    x = torch.randn(96, 3, 6, 6)
    plain = warmed_up(ConvNet(), x)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)).eval()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in synced.modules())
    for model in (plain, synced):
        recalibrate(model, list(x.split(16)))
    for one, other in zip(plain.buffers(), synced.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_functional_dropout() -> None:
    """F.dropout with its flag is switched off; without it the repair is refused."""

    class Net(nn.Module):
        def __init__(self, *, honest: bool) -> None:
            super().__init__()
            self.bn, self.honest = nn.BatchNorm1d(3), honest

        def forward(self, x: Tensor) -> Tensor:
            on = self.training if self.honest else True
            out: Tensor = self.bn(functional.dropout(x, 0.5, on))
            return out

    torch.manual_seed(8)
    x = torch.randn(512, 3) + 1
    model = warmed_up(Net(honest=True), x)
    recalibrate(model, list(x.split(64)))
    check(model, x, ["bn"])
    dishonest = warmed_up(Net(honest=False), x)
    for repair in (recalibrate, correct):
        with pytest.raises(FixDeclinedError, match="stays on in eval"):
            repair(dishonest, [x])


@pytest.mark.parametrize("repair", [recalibrate, correct])
def test_an_exception_in_mid_loader(repair: object) -> None:
    """A loader that raises: flags, buffers, momentum and hooks are as they were."""
    torch.manual_seed(9)
    x = torch.randn(64, 12)
    model = warmed_up(Mlp(), x).train()
    model.body[3].eval()
    before = state_of(model)

    def broken() -> Iterator[Tensor]:
        yield x[:32]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        repair(model, broken())  # type: ignore[operator]
    assert state_of(model) == before


@pytest.mark.parametrize("repair", [recalibrate, correct])
def test_an_exception_in_the_forward(repair: object) -> None:
    """A forward that raises on the third batch: likewise."""

    class Fragile(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            if float(x.max()) > 50:
                raise ValueError("too bright")
            return super().forward(x)

    torch.manual_seed(10)
    x = torch.randn(96, 12)
    model = warmed_up(Fragile(), x)
    x[80, 3] = 99.0
    before = state_of(model)
    with pytest.raises(Exception, match="too bright"):
        repair(model, list(x.split(32)))  # type: ignore[operator]
    assert state_of(model) == before


def state_of(model: nn.Module) -> object:
    """Everything that a repair might leave changed."""
    return (
        [module.training for module in model.modules()],
        [(name, buffer.tolist()) for name, buffer in model.named_buffers()],
        [getattr(module, "momentum", None) for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    )


@pytest.mark.parametrize("repair", [recalibrate, correct])
@pytest.mark.parametrize("batches", [[], [torch.randn(1, 12)]])
def test_an_empty_loader(repair: object, batches: list[Tensor]) -> None:
    """No sample, or one: refused, and no buffer becomes 0 or 1."""
    model = warmed_up(Mlp(), torch.randn(64, 12))
    before = state_of(model)
    with pytest.raises(DataError):
        repair(model, batches)  # type: ignore[operator]
    assert state_of(model) == before


def test_momentum_none_and_a_long_history() -> None:
    """A cumulative average over 100,000 old batches: the new statistics are new all the same."""
    torch.manual_seed(11)
    x = torch.randn(200, 3)
    model = Single()
    model.bn.momentum = None
    model.bn.running_var.fill_(100.0)
    model.bn.num_batches_tracked.fill_(100_000)
    recalibrate(model, list(x.split(50)))
    check(model, x, ["bn"])
    assert model.bn.momentum is None
    assert int(model.bn.num_batches_tracked) == 100_000


def test_bf16_weights() -> None:
    """A bfloat16 model, 500 batches of mean 10: no stalled sum; within bfloat16's own rounding."""
    torch.manual_seed(12)
    x = (torch.randn(4000, 3) + 10).bfloat16()
    model = Single().bfloat16()
    recalibrate(model, list(x.split(8)))
    exact = x.double()
    assert model.bn.running_mean.dtype is torch.bfloat16
    torch.testing.assert_close(model.bn.running_mean.double(), exact.mean(0), rtol=2**-8, atol=0)
    torch.testing.assert_close(model.bn.running_var.double(), exact.var(0), rtol=2**-8, atol=0)


@pytest.mark.parametrize("repair", [recalibrate, correct])
def test_aliases_of_buffers_see_the_repair(repair: object) -> None:
    """Buffers are filled, never replaced: an EMA copy or an export that shares them follows."""
    torch.manual_seed(13)
    x = torch.randn(256, 12)
    model = warmed_up(Mlp(), x)
    alias = model.body[5].running_var
    twin = Mlp()
    twin.body[5].running_var = alias
    before = alias.clone()
    repair(model, list(x.split(64)))  # type: ignore[operator]
    assert twin.body[5].running_var is model.body[5].running_var
    assert not torch.equal(alias, before)


def test_a_non_finite_layer_is_refused() -> None:
    """Overflow upstream: nothing is written, and the layer is named."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    with torch.no_grad():
        model[0].weight.fill_(1e308)
    before = state_of(model)
    with pytest.raises(FixDeclinedError, match="'1' are not finite"):
        recalibrate(model, [torch.randn(64, 3).double() * 1e10])
    assert state_of(model) == before


def test_a_dead_channel_stays_finite() -> None:
    """A channel that is always 0 gets variance 0, and eval() stays finite."""
    torch.manual_seed(14)
    x = torch.randn(128, 3)
    x[:, 1] = 0.0
    model = Single()
    recalibrate(model, list(x.split(32)))
    assert float(model.bn.running_var[1]) == 0.0
    assert bool(model.eval()(x).isfinite().all())


def test_dropout_shift_is_gone_for_scan_too() -> None:
    """What the repair says of itself and what a scan finds afterwards agree."""
    torch.manual_seed(15)
    x = torch.randn(400, 12)
    model = warmed_up(Mlp(), x, steps=100)
    record = recalibrate(model, list(x.split(50)))
    report = scan(model, list(x.split(50)))
    assert record.residual < 1e-5
    assert max(layer.shift for layer in report.layers) < 1 + 1e-4
