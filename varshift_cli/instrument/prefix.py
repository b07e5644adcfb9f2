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

_COSTLY = frozenset(
    overload
    for packet in (
        *(aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution, aten._convolution),
        *(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d),
        *(aten.linear, aten.addmm, aten.mm, aten.bmm, aten.baddbmm, aten.matmul),
        *(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d),
    )
    for overload in (getattr(packet, name) for name in packet.overloads())  # type: ignore[no-untyped-call]
    if not overload._schema.is_mutable
)
"""Ops that take much longer than a look at their arguments, and return one new tensor."""

_SMALL = 1 << 14
"""Values of the largest argument below which an op is sooner done than looked up."""
_USES = 64
"""A weight that is used for fewer values than this is sooner multiplied than looked at."""


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
    kept: dict[int, deque[_Kept]] = {}
    return _Recorder(kept, room), _Player(kept)


class _Recorder:
    """Runs every op, and keeps what costly ones before the first dropout returned."""

    def __init__(self, kept: dict[int, deque[_Kept]], room: int) -> None:
        self._kept, self._room = kept, room
        self._over: set[int] = set()

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if batch in self._over or not _is_worth_it(op, args, kwargs):
            return op(*args, **kwargs)
        output = op(*args, **kwargs)
        kept = _Kept.of(op, args, kwargs, output)
        size = output.untyped_storage().nbytes() if kept is not None else 0
        if kept is not None and size <= self._room:
            self._room -= size
            self._kept.setdefault(batch, deque()).append(kept)
        else:
            self._over.add(batch)
        return output

    def noise_met(self, batch: int) -> None:
        self._over.add(batch)

    def forget(self) -> None:
        self._kept.clear()


class _Player:
    """Hands out what was kept, in order, as long as ops and arguments are the same."""

    def __init__(self, kept: dict[int, deque[_Kept]]) -> None:
        self._kept = kept

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if not self._kept.get(batch) or not _is_worth_it(op, args, kwargs):
            return op(*args, **kwargs)
        kept = self._kept[batch].popleft()
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
    return made >= _SMALL and made * _USES >= weights


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
