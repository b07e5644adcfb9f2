"""How weights carry the variance of a noise on: linear layers and convolutions.

Exact, whatever the stride, padding, dilation and groups: the layer's own op is run on amplitudes
or on squares, with its weights or with their squares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from varshift_cli.instrument.images import Image, Units, Unpredictable
from varshift_cli.records import Case

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
WEIGHTED = frozenset({"linear", "addmm", "mm", "matmul", *CONVOLUTIONS, *TRANSPOSED})
"""Names of the ops that are followed."""

_MOST_BYTES = 64_000_000  # of one intermediate, when a channel is taken at a time


class Weights:
    """One call of a linear layer or convolution.

    Args:
        name: One of :data:`WEIGHTED`.
        op: The op itself.
        args: Of the call.
        kwargs: Of the call.
    """

    def __init__(
        self, name: str, op: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.name = name
        self._op = op
        self._args = list(args)
        self._kwargs = dict(kwargs)
        # addmm(bias, x, w); all others (x, w, ...).
        self._at = 1 if name == "addmm" else 0

    @property
    def input(self) -> Tensor:
        """X, (N, C_in, *S) or (..., F)."""
        found: Tensor = self._args[self._at]
        return found

    @property
    def weight(self) -> Tensor:
        """As the op takes it."""
        found: Tensor = self._args[self._at + 1]
        return found

    @property
    def groups(self) -> int:
        """Of a convolution; 1 otherwise."""
        if self.name in CONVOLUTIONS or self.name in TRANSPOSED:
            return int(self._kwargs.get("groups", self._args[6] if len(self._args) > 6 else 1))
        return 1

    def filters(self) -> Tensor:
        """One row per output channel, shape (O, d): d inputs with a weight each."""
        if self.name == "linear" or self.name in CONVOLUTIONS:
            return self.weight.flatten(1)
        if self.name in {"addmm", "mm", "matmul"} and self.weight.dim() == 2:
            return self.weight.t()
        raise Unpredictable(f"{self.name} has no filter of one size")

    def run(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The op without its bias, on another input and perhaps other weights."""
        weight = self.weight if weight is None else weight
        if self.name == "addmm":
            return torch.mm(x, weight)
        args = [x, weight, *self._args[2:]]
        kwargs = {**self._kwargs}
        if self.name not in {"mm", "matmul"}:
            if len(args) > 2:
                args[2] = None
            kwargs.pop("bias", None)
        result: Tensor = self._op(*args, **kwargs)
        return result

    def window_sums(self) -> Tensor:
        """The sum of all inputs under the window of one filter, without padding: (N, G, *S)."""
        x, weight = self.input, self.weight
        if self.name not in CONVOLUTIONS:
            return x.reshape(-1, x.shape[-1]).sum(1, keepdim=True)
        ones = torch.ones_like(weight[: self.groups])
        stride = self._args[3] if len(self._args) > 3 else 1
        dilation = self._args[5] if len(self._args) > 5 else 1
        convolve = getattr(torch, self.name)
        sums: Tensor = convolve(x, ones, None, stride, 0, dilation, self.groups)
        return sums

    def carried(self, image: Image) -> Image:
        """The image of a noise behind these weights.

        Raises:
            Unpredictable: No closed form.
        """
        surplus = None if image.surplus is None else self.run(image.surplus)
        if image.units is Units.SAMPLE:
            moved = image.mapped(self.run(image.amplitude), surplus)
            return _behind_weights(moved)
        if image.units is Units.ELEMENT:
            variance = self.run(image.amplitude.square(), self.weight.square())
            return _behind_weights(image.entangled(variance, surplus))
        if image.units is Units.CHANNEL:
            variance = self._by_channel(image)
            return _behind_weights(image.entangled(variance, surplus))
        raise Unpredictable("weights lie behind weights, with no BatchNorm between")

    def _by_channel(self, image: Image) -> Tensor:
        """Sum over channels of the square of what each channel alone contributes."""
        amplitude = image.amplitude
        if self.name in CONVOLUTIONS and image.per == 1:
            return self._by_convolved_channel(amplitude)
        if self.name == "linear" and amplitude.dim() == 2:
            return self._by_features(amplitude, image.per)
        raise Unpredictable(f"channel noise in front of {self.name}")

    def _by_convolved_channel(self, amplitude: Tensor) -> Tensor:
        """Channel by channel, as a convolution of as many groups as there are channels."""
        inside = self.weight.shape[1]
        outputs = self.weight.shape[0] // self.groups
        total = torch.zeros_like(self.run(amplitude))
        step = max(1, _MOST_BYTES // max(1, total[:, :outputs].numel() * 4))
        for group in range(self.groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            for first in range(0, inside, step):
                own = range(first, min(first + step, inside))
                channels = [group * inside + index for index in own]
                # (O, len(own), *K) -> (len(own) * O, 1, *K): O filters for each channel.
                kernels = self.weight[rows, first : first + len(own)].transpose(0, 1)
                alone = self._grouped(amplitude[:, channels], kernels.flatten(0, 1).unsqueeze(1))
                split = alone.view(alone.shape[0], len(own), outputs, *alone.shape[2:])
                total[:, rows] += split.square().sum(1)
        return total

    def _grouped(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution with other weights, a group for each channel, and no bias."""
        names = ("bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, self._args[2:], strict=False)) | self._kwargs
        given |= {"bias": None, "groups": x.shape[1]}
        convolve = getattr(torch, self.name)
        result: Tensor = convolve(x, weight, **given)
        return result

    def _by_features(self, amplitude: Tensor, per: int) -> Tensor:
        """(N, C * per) through (O, C * per): features of a channel are added before squaring."""
        total = torch.zeros_like(self.run(amplitude))
        for first in range(0, amplitude.shape[1], per):
            part = slice(first, first + per)
            total += (amplitude[:, part] @ self.weight[:, part].t()).square()
        return total


def _behind_weights(image: Image) -> Image:
    return replace(image, case=Case.THROUGH_WEIGHTS, whole=False)
