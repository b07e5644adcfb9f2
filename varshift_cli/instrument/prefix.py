"""What forwards compute before their first dropout, taken from the clean pass into the train pass.

Up to its first dropout a forward does the same in both passes: a stem and part of a first block,
or all but the head of a net whose only dropout sits there. The clean pass keeps what the costly
ops up to there returned, and the train pass takes that instead of computing it again, once it has
seen that op and arguments are those of the clean pass. Whatever else a forward does it does in
both passes: one that works in place, counts its calls or draws random numbers goes its own way.

Tensors are compared by hashes of their bits, which one read takes: of 1,024 values at a time, in
which no change of a single one is missed, and others by one chance in 2^32.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._pytree import tree_leaves

from varshift_cli.instrument.calls import Op

aten = torch.ops.aten


def _overloads(*names: str) -> frozenset[Any]:
    """Every overload of the named ops that returns a new tensor."""
    packets = [getattr(aten, name) for name in names]
    overloads = [getattr(each, name) for each in packets for name in each.overloads()]
    return frozenset(each for each in overloads if not each._schema.is_mutable)


_CONVOLUTIONS = _overloads(
    "conv1d", "conv2d", "conv3d", "convolution", "_convolution",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip
_COSTLY = _CONVOLUTIONS | _overloads(
    "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "max_pool1d", "max_pool2d", "max_pool3d"
)
"""Ops that take much longer than a look at their arguments, and return one new tensor."""

_SMALL = 1 << 14
"""Values of the largest argument below which an op is sooner done than looked up."""
_USES = 64
"""A weight that is used for fewer values than this is sooner multiplied than looked at."""
_EFFORT = 64
"""Multiplications for each value below which a convolution takes as long as to write the values
(the first of three channels, those channel by channel): not worth the memory."""


class Carrier(Protocol):
    """Carries out the ops of forwards."""

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of an op, in the forward of a batch."""

    def noise_met(self, batch: int) -> None:
        """This forward calls a dropout that does something when it is on."""

    def forget(self) -> None:
        """The forwards will not be gone on with."""


class Plainly:
    """Carries out every op as it is."""

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run it."""
        return op(*args, **kwargs)

    def noise_met(self, batch: int) -> None:
        """Nothing changes."""

    def forget(self) -> None:
        """There is nothing."""


def recorder_and_player(room: int) -> tuple[Carrier, Carrier]:
    """For a clean pass, and for the train pass over the same batches in a single window.

    Args:
        room: Bytes that results may take; what finds no room is computed in both passes.
    """
    kept: _KeptByBatch = {}
    return _Recorder(kept, room), _Player(kept)


class _Recorder:
    """Runs every op, and keeps what costly ones before the first dropout returned."""

    def __init__(self, kept: _KeptByBatch, room: int) -> None:
        self._kept, self._room = kept, room
        self._over: set[int] = set()

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if batch in self._over or not _is_worth_it(op, args, kwargs):
            return op(*args, **kwargs)
        output = op(*args, **kwargs)
        kept = _Kept.of(op, args, kwargs, output) if _size(output) <= self._room else None
        if kept is not None:
            self._room -= _size(output)
        self._kept.setdefault(batch, deque()).append(kept)
        return output

    def noise_met(self, batch: int) -> None:
        self._over.add(batch)

    def forget(self) -> None:
        self._kept.clear()


class _Player:
    """Hands out what was kept, in order, as long as ops and arguments are the same."""

    def __init__(self, kept: _KeptByBatch) -> None:
        self._kept = kept

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if not self._kept.get(batch) or not _is_worth_it(op, args, kwargs):
            return op(*args, **kwargs)
        kept = self._kept[batch].popleft()
        if kept is None:
            return op(*args, **kwargs)
        if not kept.answers(op, args, kwargs):
            self._kept[batch].clear()
            return op(*args, **kwargs)
        # The clean pass may have gone on working on its result, or the model may hold it yet.
        if not kept.returned.fits(kept.output) or _is_held_elsewhere(kept.output):
            return op(*args, **kwargs)
        return kept.output

    def noise_met(self, batch: int) -> None:
        self._kept.pop(batch, None)

    def forget(self) -> None:
        self._kept.clear()


def _is_worth_it(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the op takes much longer than to look at what it is given, weights included."""
    if op not in _COSTLY:
        return False
    tensors = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, Tensor)]
    # What was made in the forward, in inference mode; all else was there before it.
    made = max((each.numel() for each in tensors if each.is_inference()), default=0)
    weights = sum(each.numel() for each in tensors if not each.is_inference())
    return made >= _SMALL and made * _USES >= weights and _effort(op, tensors) >= _EFFORT


def _effort(op: Op, tensors: Sequence[Tensor]) -> float:
    """Multiplications for each value of a convolution's output; other ops are worth it."""
    if op not in _CONVOLUTIONS or len(tensors) < 2 or not tensors[1].shape[0]:
        return math.inf
    return tensors[1].numel() / tensors[1].shape[0]


def _size(output: Any) -> int:
    return output.untyped_storage().nbytes() if isinstance(output, Tensor) else 0


def _is_held_elsewhere(tensor: Tensor) -> bool:
    """Whether another tensor lies on its memory; one counts twice, with the wrapper made here."""
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) > 2


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """An op of the clean pass: what it was given and what it returned."""

    op: Op
    given: list[Any]
    """Plain values, and a :class:`_Look` for each tensor."""
    output: Tensor
    returned: _Look

    @classmethod
    def of(
        cls, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> _Kept | None:
        """``None`` where a tensor is of a kind that is not compared."""
        leaves = tree_leaves((args, dict(kwargs)))
        if not all(_is_plain(leaf) for leaf in (output, *leaves) if isinstance(leaf, Tensor)):
            return None
        given = [_Look.at(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return cls(op, given, output.detach(), _Look.at(output))

    def answers(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether this op with these arguments is the one that was kept."""
        leaves = tree_leaves((args, dict(kwargs)))
        return (
            op == self.op
            and len(leaves) == len(self.given)
            and all(
                each.fits(leaf) if isinstance(each, _Look) else each == leaf
                for each, leaf in zip(self.given, leaves, strict=True)
            )
        )


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is a floating tensor in ordinary memory, which a look tells all about."""
    return (
        type(tensor) in (Tensor, Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in _FLOATS
        and not (tensor.is_conj() or tensor.is_neg())
    )


_KeptByBatch = dict[int, deque[_Kept | None]]
"""In the order of the forward; ``None`` for a result that was not kept."""


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What is remembered of a tensor, to know it again."""

    outside: tuple[object, ...]
    hashes: Tensor

    @classmethod
    def at(cls, tensor: Tensor) -> _Look:
        """Look at a tensor."""
        return cls(_outside(tensor), _hashes(tensor))

    def fits(self, tensor: Any) -> bool:
        """Whether a tensor is, value for value, what was looked at."""
        return (
            isinstance(tensor, Tensor)
            and _is_plain(tensor)
            and _outside(tensor) == self.outside
            and torch.equal(_hashes(tensor), self.hashes)
        )


def _outside(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WIDTH = 1024
"""Words of 32 bits that share a hash."""


def _hashes(tensor: Tensor) -> Tensor:
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
