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
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from varshift_cli.instrument.calls import (
    BatchNormCall,
    DropoutCall,
    ModuleNoiseCall,
    NoiseCall,
    Op,
)
from varshift_cli.instrument.image_rules import through
from varshift_cli.instrument.images import Image, Lost, Unpredictable
from varshift_cli.instrument.linear_ops import WEIGHTED, Weights
from varshift_cli.instrument.sites import NoiseKey
from varshift_cli.records import Case

Tags = dict[NoiseKey, Image | Lost]

Source = Callable[[NoiseCall, Tensor], Image | Lost]
"""What a noise call puts on its output, which is given with the noise off."""
Weighed = Callable[[NoiseKey, Image, Weights], Any]
"""Told of every noise that comes to weights, before it goes through them; returns what to call
these weights."""
Arrived = Callable[[BatchNormCall, int, Mapping[NoiseKey, Image | Lost]], Tensor]
"""Told of every BN call and of what arrives there; returns BN's output."""


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
        return output if call.silent else self._marked(call, output)

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
        if isinstance(output, Tensor):
            # An op in place goes on with its input, whatever it is answered.
            in_place = isinstance(call, DropoutCall) and call.in_place
            copy = output if in_place else output.clone()
            self._tags[copy] = {**self._of(output), call.key: self._source(call, copy)}
            return copy

        def lost(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            copy = leaf.clone()
            reason = f"no closed form for {call.kind.name}"
            self._tags[copy] = {**self._of(leaf), call.key: Lost(reason, Case.THROUGH_WEIGHTS)}
            return copy

        return tree_map(lost, output)

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
            return through(name, op, args, kwargs, inputs, images, outputs)
        except Unpredictable as why:
            return [Lost(str(why), first.case)] * len(outputs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            # The op itself went well; only the rule does not fit this use of it.
            return [Lost(f"{name} lies between, in a form that is not followed", first.case)] * len(
                outputs
            )

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
