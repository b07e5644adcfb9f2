"""What ops without weights make of a noise: sums, products, shapes, pooling, ReLU.

Each rule is exact or refuses. A rule runs the op itself on amplitudes, so that strides, paddings
and dimensions need no second reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from varshift_cli.instrument.calls import Op
from varshift_cli.instrument.images import Image, Lost, Units, Unpredictable, added, broadcast

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


def through(
    name: str,
    op: Op,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: Sequence[Tensor],
    images: Sequence[Image | None],
    outputs: Sequence[Tensor],
) -> Sequence[Image | Lost]:
    """What an op without weights makes of one noise, for each of its outputs.

    Args:
        name: Of the op, without namespace and trailing underscore.
        op: The op.
        args: Of the call.
        kwargs: Of the call.
        inputs: The tensors among them.
        images: What the noise is in each; ``None`` where it is not.
        outputs: The tensors that came out.

    Raises:
        Unpredictable: No closed form.
    """
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
