"""Every figure of a scan against something that cannot share its bug."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import ConvNet, Mlp, Straight, batches_of, captured_inputs, warmed_up
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement import Measurement, layer_record, measure
from varshift_cli.records import LayerRecord, SilentProgress


def scan(model: nn.Module, x: Tensor, size: int = 16) -> tuple[Measurement, list[LayerRecord]]:
    measured = measure(
        model, find_batch_norms(model), batches_of(x, size), seed=0, progress=SilentProgress()
    )
    return measured, [layer_record(layer, layer.key.name, 0) for layer in measured.layers]


@pytest.fixture
def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    x = torch.randn(96, 3, 6, 6) + 0.3
    return warmed_up(ConvNet(), x), x


def test_eval_moments_are_those_of_the_concatenation(net: tuple[nn.Module, Tensor]) -> None:
    """E agrees with float64 over everything that plain hooks capture, to 1e-6."""
    model, x = net
    measured, _ = scan(model, x, size=7)
    caught = captured_inputs(model, x, ["bn1", "bn2", "bn3"])
    assert [layer.key.name for layer in measured.layers] == ["bn1", "bn2", "bn3"]
    for layer in measured.layers:
        expected = caught[layer.key.name]
        pooled = layer.eval.pooled()
        torch.testing.assert_close(pooled.mean, expected.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(pooled.var, expected.var(0), rtol=1e-6, atol=1e-9)


def test_clean_moments_are_those_of_layer_by_layer_repair(net: tuple[nn.Module, Tensor]) -> None:
    """C agrees with repairing one layer after the other by hand, in float64, to 1e-6."""
    model, x = net
    measured, _ = scan(model, x, size=7)
    by_hand = copy.deepcopy(model).double().eval()
    for layer in measured.layers:
        expected = captured_inputs(by_hand, x.double(), [layer.key.name])[layer.key.name]
        bn = by_hand.get_submodule(layer.key.name)
        bn.running_mean.copy_(expected.mean(0))
        bn.running_var.copy_(expected.var(0))
        pooled = layer.clean.pooled()
        torch.testing.assert_close(pooled.mean, expected.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pooled.var, expected.var(0), rtol=1e-6, atol=1e-9)


def test_factors_multiply_to_signed(net: tuple[nn.Module, Tensor]) -> None:
    """stale x dropout x inherited = signed to 1e-9, at every layer."""
    _, records = scan(*net)
    for record in records:
        factors = record.factors
        assert factors.stale is not None
        assert factors.dropout is not None
        assert factors.inherited is not None
        product = factors.stale * factors.dropout * factors.inherited
        assert product == pytest.approx(record.signed, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
@pytest.mark.parametrize("build", [ConvNet, Mlp])
def test_figures_do_not_depend_on_batch_size_or_order(build: type[nn.Module], size: int) -> None:
    """Batch size 1, 2, 8, 64 and a permutation of the samples change no figure by 1e-5."""
    torch.manual_seed(4)
    shape = (96, 3, 6, 6) if build is ConvNet else (96, 12)
    x = torch.randn(shape)
    model = warmed_up(build(), x)
    _, whole = scan(model, x, size=96)
    _, cut = scan(model, x[torch.randperm(96)], size=size)
    for one, other in zip(whole, cut, strict=True):
        for name in ("shift", "signed", "paper_ratio", "median_ratio", "mean_shift"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5)
        for name in ("stale", "dropout", "inherited"):
            assert getattr(one.factors, name) == pytest.approx(
                getattr(other.factors, name), rel=1e-5
            )
        assert one.shift_interval is not None
        assert other.shift_interval is not None
        assert one.shift_interval.low == pytest.approx(other.shift_interval.low, rel=1e-5)
        assert one.shift_interval.high == pytest.approx(other.shift_interval.high, rel=1e-5)


def test_without_dropout_the_dropout_factor_is_exactly_one() -> None:
    """T and C are the same pass, so that C/T is 1 to the last bit, with no interval to speak of."""
    x = torch.randn(64, 12)
    measured, records = scan(warmed_up(Mlp(p=0.0), x), x)
    assert all(layer.train is layer.clean for layer in measured.layers)
    assert {record.factors.dropout for record in records} == {1.0}


def log_factor(record: LayerRecord) -> tuple[float, float, float]:
    interval = record.factor_intervals.dropout
    assert record.factors.dropout is not None
    assert interval is not None
    return math.log(record.factors.dropout), math.log(interval.low), math.log(interval.high)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_straight_behind_dropout_is_the_papers_case_a(p: float) -> None:
    """C/T = v / ((c^2 + v)/keep - c^2) (Li et al., eq. 7-8) on the same data, in the interval."""
    torch.manual_seed(0)
    x = torch.randn(2000, 40) * torch.linspace(0.5, 2, 40) + torch.linspace(-1, 1, 40)
    mean, var = x.double().mean(0), x.double().var(0)
    keep = 1 - p
    predicted = float((var / ((mean.square() + var) / keep - mean.square())).log().mean())
    _, (record,) = scan(Straight(40, p), x, size=128)
    measured, low, high = log_factor(record)
    assert low <= predicted <= high
    assert abs(high - low) < 0.1 < abs(measured)


class Behind(nn.Module):
    """ReLU, Dropout, then weights, then BN."""

    def __init__(self, weights: nn.Module, bn: nn.Module, p: float) -> None:
        super().__init__()
        self.drop, self.weights, self.bn = nn.Dropout(p), weights, bn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.weights(self.drop(functional.relu(x))))
        return out


@pytest.mark.parametrize("p", [0.2, 0.6])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_behind_weights_dropout_adds_the_master_identitys_variance(kind: str, p: float) -> None:
    """T = C + p/(1-p) E[sum w^2 x^2] (theory of multiplicative noise), within the interval."""
    torch.manual_seed(0)
    if kind == "linear":
        x = torch.randn(3000, 30) + 0.5
        weights: nn.Module = nn.Linear(30, 20)
        model = Behind(weights, nn.BatchNorm1d(20), p)
        squares = functional.linear(functional.relu(x).double().square(), _squared(weights))
        plain = functional.linear(functional.relu(x).double(), weights.weight.double())
        var, extra = plain.var(0), squares.mean(0)
    else:
        x = torch.randn(600, 4, 8, 8) + 0.5
        weights = nn.Conv2d(4, 10, 3, padding=1)
        model = Behind(weights, nn.BatchNorm2d(10), p)
        squares = functional.conv2d(
            functional.relu(x).double().square(), _squared(weights), padding=1
        )
        plain = functional.conv2d(functional.relu(x).double(), weights.weight.double(), padding=1)
        var, extra = plain.movedim(1, -1).flatten(0, -2).var(0), squares.mean((0, 2, 3))
    predicted = float((var / (var + p / (1 - p) * extra)).log().mean().detach())
    _, (record,) = scan(model, x, size=100)
    measured, low, high = log_factor(record)
    assert low <= predicted <= high
    assert abs(high - low) < 0.1 < abs(measured)


def _squared(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.double().square()


def test_dead_channels_are_counted_and_left_out() -> None:
    """A channel without a signal (denormal buffer, constant input) does not move the mean."""
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    model = Straight(6, 0.0)
    model.bn.running_var.copy_(x.var(0) * 2)
    _, (healthy,) = scan(model, x)
    wide = torch.cat([x, torch.zeros(200, 3)], dim=1)
    dead = Straight(9, 0.0)
    dead.bn.running_var.copy_(torch.cat([x.var(0) * 2, torch.full((3,), 5.6e-45)]))
    _, (record,) = scan(dead, wide)
    assert record.dead_channels == 3
    assert record.signed == pytest.approx(healthy.signed, rel=1e-9)
    # 1/2 up to eps, against which variances near 1 are not quite infinite.
    assert record.signed == pytest.approx(0.5, abs=1e-5)


def test_mean_shift_and_paper_ratio_by_hand() -> None:
    """Figures of one layer computed by hand on buffers set by hand."""
    x = torch.tensor([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0]] * 8)
    model = Straight(2, 0.0)
    var = x.double().var(0)
    model.bn.running_mean.copy_(torch.tensor([2.0, 1.0]))
    model.bn.running_var.copy_(torch.tensor([4.0, 8.0]))
    _, (record,) = scan(model, x)
    eps = model.bn.eps
    expected = math.sqrt(((2.0 - 2.0) ** 2 / (4 + eps) + (4.0 - 1.0) ** 2 / (8 + eps)) / 2)
    assert record.mean_shift == pytest.approx(expected, rel=1e-9)
    assert record.paper_ratio == pytest.approx(6.0 / float(var.mean()), rel=1e-9)
    ratios = (var + eps) / (torch.tensor([4.0, 8.0], dtype=torch.float64) + eps)
    assert record.signed == pytest.approx(float(ratios.log().mean().exp()), rel=1e-9)
    assert record.worst_channel == 1
    assert record.worst_ratio == pytest.approx(float(ratios[1]), rel=1e-9)
