"""Correction by difference: only what dropout did, only where it did it, only once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.nets import ConvNet, Mlp, Straight, captured_inputs, warmed_up
from varshift_cli import FixDeclinedError, correct, recalibrate, scan


def gathered_long(model: nn.Module, x: Tensor) -> nn.Module:
    """Buffers as long training leaves them: the cumulative average over many masks."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    return warmed_up(model, x, steps=60, size=len(x))


def test_closed_form_straight_before_batchnorm() -> None:
    """Dropout straight before BN, on other data than the buffers' own: R times v/(v + q/p(v+c2)).

    The buffers say 10 times what this data give; the ratio is what is carried over.
    """
    torch.manual_seed(0)
    x = torch.randn(20_000, 6) * 1.5 + 0.7
    model = Straight(6, p=0.4)
    c2, v = x.double().mean(0).square(), x.double().var(0)
    with_dropout = v + 0.4 / 0.6 * (v + c2)
    model.bn.running_var.copy_(10 * with_dropout)
    correct(model, list(x.split(2000)))
    torch.testing.assert_close(model.bn.running_var.double(), 10 * v, rtol=0.025, atol=0.0)


def test_where_the_buffers_describe_the_data_it_equals_recalibration() -> None:
    """With R gathered on the same data over many masks, correction finds what it does."""
    torch.manual_seed(1)
    x = torch.randn(4096, 12)
    corrected, recalibrated = (gathered_long(_seeded(Mlp(p=0.3)), x) for _ in range(2))
    before = scan(corrected, x, samples=None)
    correct(corrected, x)
    recalibrate(recalibrated, x)
    for (name, found), expected in zip(
        corrected.named_buffers(), recalibrated.buffers(), strict=True
    ):
        if name.endswith("running_var"):
            assert float((found / expected).log().abs().mean()) < 0.03
    after = scan(corrected, x, samples=None)
    assert max(layer.shift for layer in before.layers) > 1.15
    assert max(layer.shift for layer in after.layers) < 1.05


def _seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    return model


def test_the_formula_by_hand() -> None:
    """running_var and running_mean as the formula says, T and C by plain hooks in float64."""
    torch.manual_seed(2)
    x = torch.randn(300, 3, 5, 5)
    model = warmed_up(ConvNet(), x, steps=100)
    running = {name: buffer.double() for name, buffer in model.named_buffers()}
    noisy = {
        layer.name: layer.channels for layer in scan(model, x, samples=None, channels=True).layers
    }
    recalibrated = copy.deepcopy(model)
    recalibrate(recalibrated, x)
    clean = captured_inputs(recalibrated.eval(), x, ["bn2", "bn3"])
    record = correct(model, x)
    assert [layer.name for layer in record.layers] == ["bn2", "bn3"]
    for name in ("bn2", "bn3"):
        t_mean = torch.tensor(noisy[name].train_mean, dtype=torch.float64)
        t_var = torch.tensor(noisy[name].train_var, dtype=torch.float64)
        r_mean, r_var = running[f"{name}.running_mean"], running[f"{name}.running_var"]
        bn = model.get_submodule(name)
        var = (r_var + bn.eps) * (clean[name].var(0) + bn.eps) / (t_var + bn.eps) - bn.eps
        mean = (
            r_mean + (clean[name].mean(0) - t_mean) * ((r_var + bn.eps) / (t_var + bn.eps)).sqrt()
        )
        torch.testing.assert_close(bn.running_var.double(), var, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(bn.running_mean.double(), mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: Mlp(p=0.0), lambda: ConvNet(p=0.0)])
def test_without_dropout_no_bit_changes(make: object) -> None:
    """A dropout-free net: every buffer keeps its very bits, on any data, denormals included."""
    torch.manual_seed(3)
    model = make()  # type: ignore[operator]
    x = torch.randn(100, 12) if isinstance(model, Mlp) else torch.randn(100, 3, 5, 5)
    warmed_up(model, x)
    first = next(m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    first.running_var[0] = 5.6e-45
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = correct(model, 3 * x + 1)
    assert record.layers == ()
    for name, value in model.state_dict().items():
        assert torch.equal(
            value.view(torch.uint8) if value.dim() else value,
            before[name].view(torch.uint8) if value.dim() else before[name],
        )


def test_layers_above_every_dropout_keep_their_bits() -> None:
    """Only BN behind a dropout is written, through other BN too; the first keeps its bits."""
    torch.manual_seed(4)
    x = torch.randn(200, 12)
    model = warmed_up(Mlp(), x)
    first = model.body[1].running_var.clone()
    record = correct(model, x)
    assert {layer.name for layer in record.layers} == {"body.5", "body.9"}
    assert "no dropout reaches it" in {skipped.reason for skipped in record.skipped}
    assert torch.equal(model.body[1].running_var, first)


@pytest.mark.parametrize("repair", [correct, recalibrate])
def test_once_only(repair: object) -> None:
    """After either repair correction is refused, and leaves every buffer alone."""
    torch.manual_seed(5)
    x = torch.randn(400, 12)
    model = warmed_up(Mlp(), x, steps=100)
    repair(model, x)  # type: ignore[operator]
    kept = {name: value.clone() for name, value in model.named_buffers()}
    with pytest.raises(FixDeclinedError, match="dropout off already"):
        correct(model, x)
    for name, value in model.named_buffers():
        assert torch.equal(value, kept[name])


def test_broken_buffers_are_refused() -> None:
    """A NaN in a buffer cannot be corrected; recalibration is named."""
    torch.manual_seed(6)
    x = torch.randn(100, 12)
    model = warmed_up(Mlp(), x)
    model.body[5].running_var[0] = float("nan")
    with pytest.raises(FixDeclinedError, match=r"'body\.5' are not finite"):
        correct(model, x)
