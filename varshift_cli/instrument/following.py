"""Follow every noise, switched off, from its site to the next BatchNorm (BN).

As the wiring does with names, this carries along what each noise would do: its amplitude in every
element of a tensor (see ``images``). BN takes note of what arrives and starts afresh. Where an op
has no rule, the noise is lost from there on, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from varshift_cli.instrument.calls import BatchNormCall, ModuleNoiseCall, NoiseCall, Op
from varshift_cli.instrument.images import (
    Image,
    Lost,
    Units,
    Unpredictable,
    added,
    broadcast,
)
from varshift_cli.instrument.linear_ops import WEIGHTED, Weights
from varshift_cli.instrument.sites import NoiseKey

Tags = dict[NoiseKey, Image | Lost]

Source = Callable[[NoiseCall, Tensor], Image | Lost]
"""What a noise call puts on its output, which is given with the noise off."""
Weighed = Callable[[NoiseKey, Image, Weights], Any]
"""Told of every noise that comes to weights, before it goes through them; returns what to call
these weights."""
Arrived = Callable[[BatchNormCall, int, Mapping[NoiseKey, Image | Lost]], Tensor]
"""Told of every BN call and of what arrives there; returns BN's output."""

_ANY_SHAPE = frozenset({"clone", "contiguous", "alias", "detach", "to", "_to_copy", "neg"})
_RESHAPING = frozenset(
    {
        "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze",
        "unsqueeze", "slice", "select", "narrow", "chunk", "split", "split_with_sizes", "unbind",
        "movedim", "_unsafe_view", "index", "constant_pad_nd", "pad",
    }
)  # fmt: skip
_HOMOGENEOUS = frozenset({"relu", "leaky_relu", "prelu", "_prelu_kernel", "abs"})
_MAX_POOLS = frozenset(
    {"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "amax", "adaptive_max_pool1d"}
)
_MEANS = frozenset(
    {
        "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "adaptive_avg_pool3d", "mean", "sum",
    }
)  # fmt: skip
_SUMS = frozenset({"add", "sub", "rsub"})
_PRODUCTS = frozenset({"mul", "div"})


class Follower:
    """A regime and an executor in one: noise off, and an account of what each would do.

    Args:
        source: What a noise call puts on its output.
        weighed: Told of noises that come to weights.
        arrived: Told of BN calls.
    """

    def __init__(self, source: Source, weighed: Weighed, arrived: Arrived) -> None:
        self._source = source
        self._weighed = weighed
        self._arrived = arrived
        self._tags: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Hand over what arrives; what leaves carries nothing."""
        return self._arrived(call, batch, self._of(call.input))

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Off, but marked."""
        if isinstance(call, ModuleNoiseCall):
            if not call.silent:
                call.then = lambda output: self._marked(call, output)
            return call.off()
        output = call.off()
        if not isinstance(output, Tensor) or call.silent:
            return output
        return self._marked(call, output)

    def execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out an op, and what the noises in its inputs become of."""
        inputs = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        tags = [self._of(each) for each in inputs]
        output = op(*args, **kwargs)
        if not isinstance(op, torch._ops.OpOverload) or not any(tags):
            return output
        name = op._schema.name.partition("::")[2].removesuffix("_")
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        noises = dict.fromkeys(key for each in tags for key in each)
        found: list[Tags] = [{} for _ in outputs]
        for key in noises:
            arrived = [each.get(key) for each in tags]
            for place, image in enumerate(
                self._image(key, name, op, args, kwargs, inputs, arrived, outputs)
            ):
                found[place][key] = image
        for tensor, carried in zip(outputs, found, strict=True):
            if tensor.is_floating_point():
                self._tags[tensor] = carried
        return output

    def _of(self, tensor: Tensor) -> Tags:
        found: Tags = self._tags.get(tensor, {})  # type: ignore[no-untyped-call]
        return found

    def _marked(self, call: NoiseCall, output: Any) -> Any:
        """The output with the noise on it; a copy, since it may be the very input."""
        if not isinstance(output, Tensor):
            return output
        before = self._of(output)
        copy = output.clone()
        self._tags[copy] = {**before, call.key: self._source(call, copy)}
        return copy

    def _image(
        self,
        key: NoiseKey,
        name: str,
        op: Op,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: Sequence[Tensor],
        arrived: Sequence[Image | Lost | None],
        outputs: Sequence[Tensor],
    ) -> Sequence[Image | Lost]:
        """What one noise is in each output."""
        gone = next((each for each in arrived if isinstance(each, Lost)), None)
        if gone is not None:
            return [gone] * len(outputs)
        images = [each if isinstance(each, Image) else None for each in arrived]
        first = next(each for each in images if each is not None)
        try:
            if name in WEIGHTED:
                return [self._weigh(key, Weights(name, op, args, kwargs), inputs, images)]
            return _through(name, op, args, kwargs, inputs, images, outputs)
        except Unpredictable as why:
            return [Lost(str(why), first.case)] * len(outputs)

    def _weigh(
        self,
        key: NoiseKey,
        weights: Weights,
        inputs: Sequence[Tensor],
        images: Sequence[Image | None],
    ) -> Image:
        carried = [
            image
            for tensor, image in zip(inputs, images, strict=True)
            if image is not None and tensor is weights.input
        ]
        if len(carried) != sum(image is not None for image in images):
            raise Unpredictable(f"{weights.name} multiplies it by noise or by data")
        if weights.name == "matmul" and weights.weight.dim() != 2:
            raise Unpredictable("matmul multiplies it by data")
        through = self._weighed(key, carried[0], weights)
        return replace(weights.carried(carried[0]), through=through)


def _through(
    name: str,
    op: Op,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: Sequence[Tensor],
    images: Sequence[Image | None],
    outputs: Sequence[Tensor],
) -> Sequence[Image | Lost]:
    """An op without weights."""
    if name in _SUMS:
        return [_sum(name, args, kwargs, inputs, images, outputs[0])]
    if name in _PRODUCTS:
        return [_product(name, args, inputs, images, outputs[0])]
    if name == "cat":
        return [_cat(args, kwargs, inputs, images)]
    (image,) = (each for each in images if each is not None)
    if len(inputs) > 1 and name not in {"prelu", "_prelu_kernel", "index"}:
        raise Unpredictable(f"{name} lies between")
    if name in _HOMOGENEOUS or name in _MAX_POOLS:
        return [_homogeneous(name, image, outputs[0])]
    if name in _MEANS:
        return [_mean(op, args, kwargs, image, inputs[0], outputs[0])]
    if name in _ANY_SHAPE or name in _RESHAPING:
        return _reshaped(name, op, args, kwargs, image, inputs[0], outputs)
    if name.startswith("upsample_nearest"):
        again = _applied(op, args, kwargs, image, outputs)[0]
        return [again.entangled(again.variance, again.surplus) if _by_element(image) else again]
    raise Unpredictable(f"{name} lies between, which is not linear")


def _applied(
    op: Op, args: Sequence[Any], kwargs: Mapping[str, Any], image: Image, outputs: Sequence[Tensor]
) -> list[Image]:
    """The op itself, run on amplitude and surplus."""
    amplitudes = tree_leaves(op(image.amplitude, *args[1:], **kwargs))
    surplus: list[Any] = [None] * len(outputs)
    if image.surplus is not None:
        surplus = tree_leaves(op(image.surplus, *args[1:], **kwargs))
    return [image.mapped(*pair) for pair in zip(amplitudes, surplus, strict=True)]


def _homogeneous(name: str, image: Image, output: Tensor) -> Image:
    """f(m x) = m f(x) for m >= 0."""
    if not (image.whole and image.positive):
        raise Unpredictable(f"{name} lies between, which is not linear")
    if name in _MAX_POOLS and image.units not in {Units.CHANNEL, Units.SAMPLE}:
        raise Unpredictable(f"{name} lies between, which is not linear")
    return image.mapped(output * image.root)


def _mean(
    op: Op,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    image: Image,
    x: Tensor,
    output: Tensor,
) -> Image:
    """Averages and sums: weights that are all equal."""
    if image.units is Units.MIXED:
        raise Unpredictable("an average lies behind weights")
    (applied,) = _applied(op, args, kwargs, image, [output])
    if image.units is Units.SAMPLE or (
        image.units is Units.CHANNEL
        and image.per == 1
        and output.dim() >= 2
        and output.shape[:2] == x.shape[:2]
    ):
        return replace(applied, whole=image.whole)
    if image.units is Units.CHANNEL:
        raise Unpredictable("an average over channels that share a draw")
    ones = torch.ones_like(image.amplitude)
    # A constant c is what the op makes of ones; the sum of squared weights is c^2 / taps, and taps
    # follow from how many values go into each output.
    taps = x.numel() / output.numel()
    weight = op(ones, *args[1:], **kwargs)
    if not taps.is_integer() or bool((weight != weight.flatten()[0]).any()):
        raise Unpredictable("an average over windows of different sizes")
    kernel = _window(op, args, kwargs, taps)
    per_value = float(weight.flatten()[0]) / kernel
    squares = op(image.amplitude.square(), *args[1:], **kwargs)
    return image.entangled(squares * per_value, applied.surplus)


def _window(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any], taps: float) -> float:
    """How many values one output averages: the kernel's size where windows may overlap."""
    assert isinstance(op, torch._ops.OpOverload)
    name = op._schema.name.partition("::")[2]
    if not name.startswith("avg_pool"):
        return taps
    sizes = kwargs.get("kernel_size", args[1] if len(args) > 1 else 1)
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    rank = int(name[len("avg_pool")])
    sizes = sizes * rank if len(sizes) == 1 else sizes
    return float(torch.tensor(sizes).prod())


def _reshaped(
    name: str,
    op: Op,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    image: Image,
    x: Tensor,
    outputs: Sequence[Tensor],
) -> Sequence[Image]:
    moved = _applied(op, args, kwargs, image, outputs)
    if name == "pad" and len(args) > 2 and args[2] not in {"constant", "circular"}:
        raise Unpredictable(f"{args[2]} padding lies between")
    if image.units is Units.CHANNEL and name in _RESHAPING:
        moved = [
            _with_channels(each, image, x, tensor)
            for each, tensor in zip(moved, outputs, strict=True)
        ]
    if (
        image.units is Units.SAMPLE
        and name in _RESHAPING
        and any(tensor.shape[:1] != x.shape[:1] for tensor in outputs)
    ):
        raise Unpredictable(f"{name} moves the dimension of samples")
    return moved


def _with_channels(moved: Image, image: Image, x: Tensor, output: Tensor) -> Image:
    """Which features share a draw, after a change of shape that leaves the channels in place."""
    if output.shape[:2] == x.shape[:2] and output.dim() >= 2:
        return moved
    if x.dim() == 2 and output.dim() > 2 and output[0, 0].numel() == image.per:
        return replace(moved, per=1)
    if x.dim() > 2 and output.shape == (x.shape[0], x[0].numel()):
        return replace(moved, per=image.per * x[0, 0].numel())
    raise Unpredictable("channels that share a draw are moved")


def _by_element(image: Image) -> bool:
    return image.units in {Units.ELEMENT, Units.CHANNEL}


def _sum(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: Sequence[Tensor],
    images: Sequence[Image | None],
    output: Tensor,
) -> Image:
    alpha = float(kwargs.get("alpha", args[2] if len(args) > 2 else 1.0))
    signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
    parts: list[Image] = []
    for place, operand in enumerate(args[:2]):
        for tensor, image in zip(inputs, images, strict=True):
            if tensor is operand and image is not None:
                scaled = image if signs[place] == 1.0 else image.scaled(signs[place])
                parts.append(broadcast(scaled, output.shape))
                break
    if len(parts) == 1:
        return replace(parts[0], whole=False)
    return added(*parts)


def _product(
    name: str,
    args: Sequence[Any],
    inputs: Sequence[Tensor],
    images: Sequence[Image | None],
    output: Tensor,
) -> Image:
    if sum(image is not None for image in images) != 1:
        raise Unpredictable("it is multiplied by itself")
    (image,) = (each for each in images if each is not None)
    left, right = args[:2]
    noisy_left = next(t for t, each in zip(inputs, images, strict=True) if each is not None) is left
    if name == "div" and (not noisy_left or len(args) > 2):
        raise Unpredictable("it is divided by")
    other = right if noisy_left else left
    factor = 1.0 / other if name == "div" else other
    scaled = image.scaled(factor)
    if scaled.amplitude.shape != output.shape:
        raise Unpredictable("the noise is broadcast over other positions")
    return scaled


def _cat(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: Sequence[Tensor],
    images: Sequence[Image | None],
) -> Image:
    present = [image for image in images if image is not None]
    if len({image.units for image in present}) > 1 or len({image.per for image in present}) > 1:
        raise Unpredictable("it arrives by two ways that share draws")
    first = present[0]
    dim = int(kwargs.get("dim", args[1] if len(args) > 1 else 0))
    if first.units is Units.CHANNEL and dim not in {1, 1 - inputs[0].dim()}:
        raise Unpredictable("channels that share a draw are moved")
    alike = [
        torch.zeros_like(tensor) if image is None else image.amplitude
        for tensor, image in zip(inputs, images, strict=True)
    ]
    surplus = None
    if any(image.surplus is not None for image in present):
        surplus = torch.cat(
            [
                torch.zeros_like(tensor)
                if image is None or image.surplus is None
                else image.surplus
                for tensor, image in zip(inputs, images, strict=True)
            ],
            dim,
        )
    joined = replace(first.mapped(torch.cat(alike, dim), surplus), whole=False)
    if len(present) > 1 and first.units is not Units.SAMPLE:
        return joined.entangled(joined.variance, surplus)
    return joined
