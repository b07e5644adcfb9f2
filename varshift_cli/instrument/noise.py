"""Dropout whose masks belong to samples, not to batches.

A mask drawn from a generator changes when a batch is cut differently, and switching one dropout
off changes the masks of all later ones. Here every random number is a function of (seed, sample,
site, call, position): the same sample meets the same mask at any batch size, in any order, with
any other dropout on or off, on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

_ALPHA = 1.7580993408473766
"""Minus SELU's saturation value, scale * alpha (Klambauer et al., 2017, arXiv 1706.02515)."""


class Law(StrEnum):
    """How the factor is distributed that a noise multiplies by; its mean is 1."""

    BERNOULLI = "bernoulli"
    GAUSSIAN = "gaussian"
    UNIFORM = "uniform"


@dataclass(frozen=True, slots=True)
class NoiseKind:
    """One of torch's dropout ops, or a noise of another law."""

    name: str
    per_channel: bool
    alpha: bool
    law: Law = Law.BERNOULLI
    """What ``p`` of a call stands for: the DROP probability, the standard deviation of a Gaussian
    factor, or half the width of a uniform one."""

    def spread(self, p: float) -> float:
        """Variance of the factor, for any kind but alpha dropout: q/(1-q), sigma^2, beta^2/3."""
        if self.law is Law.GAUSSIAN:
            return p * p
        if self.law is Law.UNIFORM:
            return p * p / 3.0
        return p / (1.0 - p)


DROPOUT = NoiseKind("dropout", per_channel=False, alpha=False)
FEATURE_DROPOUT = NoiseKind("feature_dropout", per_channel=True, alpha=False)
ALPHA_DROPOUT = NoiseKind("alpha_dropout", per_channel=False, alpha=True)
FEATURE_ALPHA_DROPOUT = NoiseKind("feature_alpha_dropout", per_channel=True, alpha=True)
GAUSSIAN_DROPOUT = NoiseKind("gaussian_dropout", per_channel=False, alpha=False, law=Law.GAUSSIAN)
UOUT = NoiseKind("uout", per_channel=False, alpha=False, law=Law.UNIFORM)


def apply_noise(kind: NoiseKind, x: Tensor, p: float, samples: Tensor, site: int) -> Tensor:
    """What the op does in training mode, with masks bound to samples.

    Args:
        kind: Which dropout.
        x: Shape (N, ...); N is the number of samples, or a multiple of it.
        p: DROP probability, 0 to 1; sigma or beta where the kind's law is another.
        samples: One key per sample, shape (B,), int64; the rows of ``x`` are dealt to them in
            equal runs. When N is no multiple of B, the whole tensor is one unit.
        site: A key of (seed, site, call).

    Returns:
        A new tensor of the shape and dtype of ``x``.
    """
    if p == 0.0 or x.numel() == 0:
        return x
    if kind.law is not Law.BERNOULLI:
        return x * _factor(kind, x, p, samples.to(x.device), site)
    if p == 1.0:
        return torch.zeros_like(x)
    keep = keep_mask(_mask_shape(kind, x), p, samples.to(x.device), site).to(x.dtype)
    if not kind.alpha:
        # In torch's own order (mask scaled first), so that half precision rounds alike.
        return x * keep.div_(1.0 - p)
    return _alpha_dropout(x, keep, p)


def keep_mask(shape: tuple[int, ...], p: float, samples: Tensor, site: int) -> Tensor:
    """Independent Bernoulli(1 - p) draws of the given shape, 0 or 1; see :func:`apply_noise`.

    As int32: to compare in place and convert takes a fifth of the time that bool takes.
    """
    threshold = round(p * 2.0**32) - 2**31
    if threshold > 2**31 - 1:
        return torch.zeros(shape or (1,), dtype=torch.int32, device=samples.device)
    return random_bits(shape, samples, site).ge_(threshold)


def _factor(kind: NoiseKind, x: Tensor, p: float, samples: Tensor, site: int) -> Tensor:
    """Factors of mean 1, uniform or Gaussian, from the same bits as the masks."""
    bits = random_bits(_mask_shape(kind, x), samples, site)
    # Between -1 and 1, neither of them reached: the middle of each of 2^32 equal steps.
    centred = (bits.double() + 0.5) / 2.0**31
    if kind.law is Law.GAUSSIAN:
        centred = torch.erfinv(centred) * math.sqrt(2.0)
    return centred.mul_(p).add_(1.0).to(x.dtype)


def random_bits(shape: tuple[int, ...], samples: Tensor, site: int) -> Tensor:
    """A random int32 for every element, a function of (sample, site, position) alone.

    Arguments as for :func:`apply_noise`.
    """
    if not shape:
        shape = (1,)
    if shape[0] % samples.shape[0]:
        samples = fold(samples)
    units = samples.shape[0]
    per_unit = math.prod(shape) // units
    positions = _positions(per_unit, site, samples.device)
    keys = _mix(_low32(samples ^ (samples >> 32))).unsqueeze(1)
    bits = positions ^ keys
    # One more round over the pair; what reads them reads the high bits, which depend on all others.
    bits.mul_(_MULTIPLIER_1)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF))
    bits.mul_(_MULTIPLIER_2)
    return bits.view(shape)


def site_key(seed: int, name: str, call: int) -> int:
    """A 32-bit key of one noise call, repeatable across processes."""
    value = 0x811C9DC5
    for byte in f"{seed}\0{name}\0{call}".encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


# Constants of the "lowbias32" integer hash (Wellons, hash-prospector), as signed 32-bit numbers.
_MULTIPLIER_1 = 0x7FEB352D
_MULTIPLIER_2 = 0x846CA68B - 2**32


def _mix(x: Tensor) -> Tensor:
    """A bijection of int32 that looks random; right shifts are made logical by a mask."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _MULTIPLIER_1
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _MULTIPLIER_2
    return x ^ ((x >> 16) & 0xFFFF)


def _low32(x: Tensor) -> Tensor:
    """The low 32 bits of int64 as int32."""
    low = x & 0xFFFFFFFF
    return torch.where(low >= 2**31, low - 2**32, low).to(torch.int32)


def _positions(count: int, site: int, device: torch.device) -> Tensor:
    """Mixed counters of one site, shape (count,), int32; the same for every batch."""
    offset = _mix(_low32(torch.tensor([site], dtype=torch.int64, device=device)))
    return _mix(torch.arange(count, dtype=torch.int32, device=device) ^ offset)


def fold(samples: Tensor) -> Tensor:
    """One key for a batch that cannot be dealt to samples; the order of samples matters."""
    value = 0
    for sample in samples.tolist():
        value = (value * 0x100000001B3 + sample) & 0x7FFFFFFFFFFFFFFF
    return torch.tensor([value], dtype=torch.int64, device=samples.device)


def _mask_shape(kind: NoiseKind, x: Tensor) -> tuple[int, ...]:
    if not kind.per_channel or x.dim() < 2:
        return tuple(x.shape)
    return (x.shape[0], x.shape[1], *(1,) * (x.dim() - 2))


def _alpha_dropout(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """Dropped values become SELU's saturation; an affine map then restores mean 0, variance 1."""
    scale = 1.0 / math.sqrt((_ALPHA**2 * p + 1.0) * (1.0 - p))
    return x * (keep * scale) + ((keep - 1.0) * (_ALPHA * scale) + _ALPHA * scale * p)
