"""The aten ops that carry noise, and how each is run with the noise on or off.

Dropouts are answered by ``noise`` itself. RNNs (dropout between their layers), attention (dropout
of its weights) and RReLU are run as torch runs them, with every random number drawn from the call's
source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from varshift_cli.instrument import noise
from varshift_cli.instrument.calls import DropoutCall, NoiseCall, OpNoiseCall
from varshift_cli.instrument.draws import KeyedDraws, Source, draw, named_arguments, seeded
from varshift_cli.instrument.sites import NoiseKey

aten = torch.ops.aten

_DROPOUT_OPS: dict[Any, noise.NoiseKind] = {
    aten.dropout.default: noise.DROPOUT,
    aten.dropout_.default: noise.DROPOUT,
    aten.feature_dropout.default: noise.FEATURE_DROPOUT,
    aten.feature_dropout_.default: noise.FEATURE_DROPOUT,
    aten.alpha_dropout.default: noise.ALPHA_DROPOUT,
    aten.alpha_dropout_.default: noise.ALPHA_DROPOUT,
    aten.feature_alpha_dropout.default: noise.FEATURE_ALPHA_DROPOUT,
    aten.feature_alpha_dropout_.default: noise.FEATURE_ALPHA_DROPOUT,
}
_IN_PLACE = {op for op in _DROPOUT_OPS if op._schema.name.endswith("_")}

RRELU = noise.NoiseKind("rrelu", per_channel=False, alpha=False)
RNN_DROPOUT = noise.NoiseKind("rnn_dropout", per_channel=False, alpha=False)
ATTENTION_DROPOUT = noise.NoiseKind("attention_dropout", per_channel=False, alpha=False)

_RRELU_OPS = {aten.rrelu.default, aten.rrelu_.default}
_RNN_OPS = {
    getattr(getattr(aten, cell), form)
    for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    for form in ("input", "data")
}
_ATTENTION = aten.scaled_dot_product_attention.default

NOISE_OPS = frozenset({*_DROPOUT_OPS, *_RRELU_OPS, *_RNN_OPS, _ATTENTION})
"""Every op that may carry noise."""

Naming = Callable[[str], NoiseKey]
"""The key of a call, given what to call a site that is no module."""


def noise_call(
    op: Any, args: Sequence[Any], kwargs: Mapping[str, Any], naming: Naming
) -> NoiseCall | None:
    """The call that an op stands for; ``None`` when there is no noise in it whatever the flags."""
    kind = _DROPOUT_OPS.get(op)
    if kind is not None:
        x, p, train = (
            kwargs[name] if index >= len(args) else args[index]
            for index, name in enumerate(("input", "p", "train"))
        )
        key = naming("dropout")
        return DropoutCall(key, kind, x, float(p), bool(train), in_place=op in _IN_PLACE)
    given = named_arguments(op, args, kwargs)
    if op in _RRELU_OPS:
        return _rrelu(op, given, naming)
    if op in _RNN_OPS:
        return _rnn(op, args, kwargs, given, naming)
    return _attention(args, kwargs, given, naming)


def _rrelu(op: Any, given: Mapping[str, Any], naming: Naming) -> NoiseCall | None:
    """Slopes of negative values uniform in (lower, upper); their mean when off."""
    x, lower, upper = given["self"], float(given["lower"]), float(given["upper"])
    if lower == upper:
        return None

    def on(source: Source) -> Tensor:
        slope = source.uniform(x.shape, x.dtype, x.device).mul_(upper - lower).add_(lower)
        output = torch.where(x >= 0, x, x * slope)
        result: Tensor = x.copy_(output) if op is aten.rrelu_.default else output
        return result

    return OpNoiseCall(
        naming("rrelu"),
        RRELU,
        x,
        None,
        bool(given["training"]),
        run_off=lambda: op(x, lower, upper, False),
        run_on=on,
    )


def _rnn(
    op: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    given: Mapping[str, Any],
    naming: Naming,
) -> NoiseCall | None:
    """Dropout on the output of each layer of an RNN but the last."""
    p = float(given["dropout"])
    if p == 0.0 or int(given["num_layers"]) < 2:
        return None
    at = [each.name for each in op._schema.arguments].index("train")

    def run(train: bool) -> Any:
        flagged = [*args]
        flagged[at] = train
        return op(*flagged, **kwargs)

    def on(source: Source) -> Any:
        # Inside, time comes first, whatever batch_first says.
        keyed = source.along(1) if "batch_sizes" not in given else source
        return _keyed(lambda: run(True), keyed)

    return OpNoiseCall(
        naming("rnn_dropout"),
        RNN_DROPOUT,
        given.get("input", given.get("data")),
        p,
        bool(given["train"]),
        mixes=True,
        run_off=lambda: run(False),
        run_on=on,
    )


def _attention(
    args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any], naming: Naming
) -> NoiseCall | None:
    """Dropout of attention weights; the op has no flag, its p is 0 when off."""
    p = float(given["dropout_p"])
    if p == 0.0:
        return None
    at = [each.name for each in _ATTENTION._schema.arguments].index("dropout_p")

    def off() -> Tensor:
        if len(args) > at:
            output: Tensor = _ATTENTION(*args[:at], 0.0, *args[at + 1 :], **kwargs)
        else:
            output = _ATTENTION(*args, **{**kwargs, "dropout_p": 0.0})
        return output

    return OpNoiseCall(
        naming("attention_dropout"),
        ATTENTION_DROPOUT,
        given["query"],
        p,
        True,
        mixes=True,
        run_off=off,
        run_on=lambda source: _attend(given, source),
    )


def _attend(given: Mapping[str, Any], source: Source) -> Tensor:
    """Attention in plain steps, with a mask of ours: kernels that fuse them draw their own."""
    query, key, value = given["query"], given["key"], given["value"]
    if given["enable_gqa"]:  # each head of the key serves several of the query
        heads = query.shape[-3]
        key = key.repeat_interleave(heads // key.shape[-3], -3)
        value = value.repeat_interleave(heads // value.shape[-3], -3)
    scale = query.shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
    scores = (query * scale) @ key.transpose(-2, -1)
    mask = given["attn_mask"]
    if given["is_causal"]:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype is torch.bool:
        scores = scores.masked_fill(mask.logical_not(), float("-inf"))
    elif mask is not None:
        scores = scores + mask.to(scores.dtype)
    weights = aten._safe_softmax.default(scores, -1)
    dropped, _ = draw(aten.native_dropout.default, (weights, given["dropout_p"], True), {}, source)
    result: Tensor = dropped @ value
    return result


def _keyed(run: Callable[[], Any], source: Source) -> Any:
    """Run an op that is made of others, its random numbers drawn from the source.

    Outside inference mode it comes apart into those others. What draws inside a kernel is at least
    seeded.
    """
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        _without_fused_kernels(),
        seeded(source),
        KeyedDraws(source),
    ):
        output = run()
    # Tensors of the world outside inference mode must not leave a dispatch mode as they are.
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, output)


@contextmanager
def _without_fused_kernels() -> Iterator[None]:
    """On CUDA an RNN is one kernel of cuDNN's, which draws by itself."""
    if not torch.cuda.is_available():
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):
        yield
