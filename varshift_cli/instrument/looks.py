"""Know a tensor again, value for value, by hashes of its bits.

One read takes them: of 1,024 words at a time, in which no change of a single value is missed, and
any other by one chance in 2^32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What is remembered of a tensor, to know it again."""

    outside: tuple[object, ...]
    hashes: Tensor

    @classmethod
    def at(cls, tensor: Tensor) -> Look:
        """Look at a tensor."""
        return cls(_outside(tensor), hashes_of(tensor))

    def fits(self, tensor: Any) -> bool:
        """Whether a tensor is, value for value, what was looked at."""
        return (
            isinstance(tensor, Tensor)
            and is_plain(tensor)
            and _outside(tensor) == self.outside
            and torch.equal(hashes_of(tensor), self.hashes)
        )


def _outside(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WIDTH = 1024
"""Words of 32 bits that share a hash."""


def hashes_of(tensor: Tensor) -> Tensor:
    """A sum of the words of every 1,024, each by an odd factor of its own, modulo 2^32."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    flat = tensor.detach().permute(order).contiguous().view(-1)
    short = flat.element_size() < torch.int32.itemsize
    words = flat.view(torch.int16).to(torch.int32) if short else flat.view(torch.int32)
    whole = words.shape[0] // _WIDTH * _WIDTH
    factors, rest = _odd_factors(), words[whole:]
    return torch.cat(
        [
            (words[:whole].view(-1, _WIDTH) * factors).sum(1, dtype=torch.int32),
            (rest * factors[: rest.shape[0]]).sum(dtype=torch.int32).view(1),
        ]
    )


@cache
def _odd_factors() -> Tensor:
    generator = torch.Generator("cpu").manual_seed(1)
    drawn = torch.randint(
        -(2**31), 2**31, (_WIDTH,), generator=generator, dtype=torch.int64, device="cpu"
    )
    return (drawn | 1).to(torch.int32)


def is_plain(tensor: Tensor) -> bool:
    """Whether it is a floating tensor in ordinary memory, which a look tells all about."""
    return (
        type(tensor) in (Tensor, Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in _FLOATS
        and not (tensor.is_conj() or tensor.is_neg())
    )
