"""Noise that is an op but no dropout op: RNN argument, attention probability, RReLU."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import batches_of
from varshift_cli.instrument import find_batch_norms, noise_ops
from varshift_cli.instrument.draws import Source, named_arguments
from varshift_cli.measurement import Measurement, layer_record, measure
from varshift_cli.records import Case, SilentProgress


def run(model: nn.Module, x: Tensor, size: int = 100) -> Measurement:
    return measure(
        model.eval(),
        find_batch_norms(model),
        batches_of(x, size),
        seed=0,
        progress=SilentProgress(),
    )


class Recurrent(nn.Module):
    """An RNN of two layers with dropout between them, then BN over features."""

    def __init__(
        self, cell: type[nn.RNNBase], *, batch_first: bool = True, **options: object
    ) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.rnn = cell(5, 7, 2, dropout=0.5, batch_first=batch_first, **options)
        self.bn = nn.BatchNorm1d(7)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        states, _ = self.rnn(x)
        states = states if self.batch_first else states.transpose(0, 1)
        out: Tensor = self.bn(states.transpose(1, 2))
        return out


CELLS = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "rnn_tanh": (nn.RNN, {}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_dropout_between_the_layers_of_an_rnn(name: str, batch_first: bool) -> None:
    """T has the variance of torch's own training mode, C that of eval; masks belong to samples."""
    torch.manual_seed(0)
    cell, options = CELLS[name]
    model, x = Recurrent(cell, batch_first=batch_first, **options), torch.randn(800, 6, 5) * 2
    measured = run(model, x)
    (visit,) = measured.wiring.noises
    assert (visit.key.name, visit.kind, visit.p) == ("rnn", "rnn_dropout", 0.5)
    assert dict(measured.wiring.batch_norms[0].dropouts) == {visit.key: Case.THROUGH_WEIGHTS}
    layer = measured.layers[0]
    model.rnn.train()
    with torch.no_grad():
        given = x if batch_first else x.transpose(0, 1)
        draws = [model.rnn(given)[0].flatten(0, 1).double().var(0) for _ in range(20)]
    ratio = layer.train.pooled().var / torch.stack(draws).mean(0)
    assert abs(float(ratio.log().mean())) < 0.04
    model.rnn.eval()
    with torch.no_grad():
        still = model.rnn(given)[0].flatten(0, 1).double().var(0)
    torch.testing.assert_close(layer.clean.pooled().var, still, rtol=1e-5, atol=0)
    assert abs(float((still / layer.train.pooled().var).log().mean())) > 0.05
    cut = run(model, x, 37).layers[0]
    torch.testing.assert_close(cut.train.pooled().var, layer.train.pooled().var, rtol=1e-5, atol=0)


def test_packed_sequences_and_single_layers() -> None:
    """Packed sequences work as well; an RNN of one layer has no noise, whatever its argument."""

    class Packed(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of dropout in a single layer
                self.rnn = nn.GRU(5, 7, layers, dropout=0.5, batch_first=True)
            self.bn = nn.BatchNorm1d(7)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(
                x, torch.full((len(x),), 6), batch_first=True, enforce_sorted=False
            )
            out: Tensor = self.bn(self.rnn(packed)[0].data)
            return out

    torch.manual_seed(0)
    x = torch.randn(200, 6, 5) * 2
    two, one = run(Packed(2), x), run(Packed(1), x)
    assert [visit.kind for visit in two.wiring.noises] == ["rnn_dropout"]
    assert two.layers[0].train is not two.layers[0].clean
    assert one.wiring.noises == ()
    assert one.layers[0].train is one.layers[0].clean


class Attention(nn.Module):
    """Attention over 8 tokens with dropout of its weights, then BN over features."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.p = form, 0.4
        self.mha = nn.MultiheadAttention(6, 2, dropout=self.p, batch_first=True)
        self.mha.in_proj_weight.data *= 3
        self.bn = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.mha(x, x, x, need_weights=self.form == "weights")
        out: Tensor = self.bn(x.transpose(1, 2))
        return out

    def closed_form(self, x: Tensor) -> Tensor:
        """T's variance: C's, and tau2 sum_j a_ij^2 (w v_j)^2 over the heads."""
        m = self.mha
        x = x.double()
        weight, bias = m.in_proj_weight.double(), m.in_proj_bias.double()
        q, k, v = (
            part.unflatten(-1, (2, 3)).transpose(1, 2)
            for part in functional.linear(x, weight, bias).chunk(3, dim=-1)
        )
        a = (q @ k.transpose(-2, -1) / 3**0.5).softmax(-1)
        mixed = (a @ v).transpose(1, 2).flatten(2)
        out = functional.linear(mixed, m.out_proj.weight.double(), m.out_proj.bias.double())
        per_head = m.out_proj.weight.double().unflatten(-1, (2, 3))
        projected = torch.einsum("ohc,nhjc->nhjo", per_head, v)
        tau2 = self.p / (1 - self.p)
        extra = tau2 * torch.einsum("nhij,nhjo->nio", a.square(), projected.square())
        return out.flatten(0, 1).var(0), extra.mean((0, 1))


@pytest.mark.parametrize("form", ["fused", "weights"])
def test_dropout_of_attention_weights(form: str) -> None:
    """torch's MultiheadAttention, fused or with its weights returned, meets the closed form."""
    torch.manual_seed(0)
    model, x = Attention(form), torch.randn(1500, 8, 6) + 0.5
    measured = run(model, x)
    (visit,) = measured.wiring.noises
    assert (visit.key.name, visit.kind, visit.p) == ("mha", "attention_dropout", 0.4)
    # out_proj lies between the weights' noise and BN, but within the module: seen as straight.
    assert [key.name for key, _ in measured.wiring.batch_norms[0].dropouts] == ["mha"]
    with torch.no_grad():
        clean, extra = model.closed_form(x)
    predicted = float((clean / (clean + extra)).log().mean())
    record = layer_record(measured.layers[0], "bn", 0)
    interval = record.factor_intervals.dropout
    assert interval is not None
    assert interval.low <= math.exp(predicted) <= interval.high
    assert predicted < -0.1


ATTENTIONS = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "causal": {"is_causal": True},
    "added mask": {"attn_mask": torch.linspace(-2, 2, 42).view(6, 7)},
    "mask": {"attn_mask": torch.arange(42).view(6, 7) % 3 > 0},
    "a query that sees nothing": {"attn_mask": torch.arange(6).view(6, 1).expand(6, 7) > 0},
    "few heads of the key": {"enable_gqa": True},
}


@pytest.mark.parametrize("options", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_in_plain_steps(options: dict[str, Any]) -> None:
    """With all weights kept it is torch's own; with a p, each weight is kept at that rate."""
    torch.manual_seed(0)
    heads = 2 if "enable_gqa" in options else 4
    query, key, value = torch.randn(50, 4, 6, 8), *torch.randn(2, 50, heads, 7, 8)
    op = torch.ops.aten.scaled_dot_product_attention.default
    given = named_arguments(op, (query, key, value), options)
    source = Source(0, 1, torch.arange(50))
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    kept = noise_ops._attend({**given, "dropout_p": 1e-12}, source)
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-5)
    ones = {**given, "value": torch.ones_like(value), "dropout_p": 0.4}
    found = torch.stack([noise_ops._attend(ones, source) for _ in range(200)])
    sees = found.sum(0) > 0
    assert float(found[:, sees].mean()) == pytest.approx(1.0, abs=0.01)
    assert float(found[:, sees].std(0).mean()) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_of_half_precision_with_a_mask_of_float32(dtype: torch.dtype) -> None:
    """torch takes such a mask; the output is of the query's dtype. Everything dropped is 0."""
    query, mask = torch.randn(6, 2, 6, 8).to(dtype), torch.linspace(-2, 2, 36).view(6, 6)
    op = torch.ops.aten.scaled_dot_product_attention.default
    given = named_arguments(op, (query, query, query, mask), {})
    source = Source(0, 1, torch.arange(6))
    found = noise_ops._attend({**given, "dropout_p": 1e-12}, source)
    expected = functional.scaled_dot_product_attention(query, query, query, mask)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert not noise_ops._attend({**given, "dropout_p": 1.0}, source).any()


def test_attention_does_not_depend_on_the_batch_size() -> None:
    """Its masks belong to samples, as those of every dropout."""
    torch.manual_seed(0)
    model, x = Attention("fused"), torch.randn(60, 8, 6) + 0.5
    whole, parts = run(model, x, 60), run(model, x, 7)
    for one, other in zip(whole.layers, parts.layers, strict=True):
        torch.testing.assert_close(
            one.train.pooled().var, other.train.pooled().var, rtol=1e-5, atol=0.0
        )


def test_attention_called_directly_is_noise_that_ignores_eval() -> None:
    """A dropout_p that no flag switches off stays on in eval(), and is told."""

    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.scaled_dot_product_attention(x, x, x, dropout_p=0.3)
            out: Tensor = self.bn(x.transpose(1, 2))
            return out

    measured = run(Direct(), torch.randn(60, 8, 6))
    assert {key.name: p for key, p in measured.always_on.items()} == {"attention_dropout#1": 0.3}


@pytest.mark.parametrize("inplace", [True, False])
def test_rrelu(inplace: bool) -> None:
    """Module and functional RReLU: the mean slope when off, slopes of each value's own when on."""

    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.bn = nn.RReLU(inplace=inplace), nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.rrelu(self.act(x + 0) - 1, training=self.training, inplace=inplace)
            out: Tensor = self.bn(x)
            return out

    torch.manual_seed(0)
    model, x = Leaky(), torch.randn(2000, 6)
    measured = run(model, x)
    assert [visit.key.name for visit in measured.wiring.noises] == ["act", "rrelu#1"]
    with torch.no_grad():
        still = functional.rrelu(functional.rrelu(x) - 1).double().var(0)
        noisy = functional.rrelu(functional.rrelu(x, training=True) - 1, training=True)
    torch.testing.assert_close(measured.layers[0].clean.pooled().var, still, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        measured.layers[0].train.pooled().var.float(), noisy.var(0), rtol=0.03, atol=0
    )
