"""What a pass over the data shares with one before it, taken from there.

Up to its first dropout a forward does the same in the clean and in the train pass: a stem and part
of a first block, or all but the head of a net whose only dropout sits there. With a single dropout
on, it does the same up to that one. The first pass keeps what costly ops returned, and the next
takes that instead of computing it again, once it has seen that op and arguments are the same.
Whatever else a forward does it does in both passes: one that works in place, counts its calls or
draws random numbers goes its own way.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from varshift_cli.instrument.calls import Op
from varshift_cli.instrument.looks import Look, is_plain

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
_POOLINGS = _overloads("max_pool1d", "max_pool2d", "max_pool3d")
_PRODUCTS = _overloads("linear", "addmm", "mm", "bmm", "baddbmm", "matmul")
_COSTLY = _CONVOLUTIONS | _POOLINGS | _PRODUCTS
"""Ops that take much longer than a look at their arguments, and return one new tensor."""

_SMALL = 1 << 14
"""Values of the largest argument below which an op is sooner done than looked up."""
_USES = 64
"""A weight that is used for fewer values than this is sooner multiplied than looked at."""
_EFFORT = 64
"""Multiplications for each value below which an op takes as long as to write the values (the first
convolution of three channels, those channel by channel): not worth the memory."""
_AS_POOLING = 2000.0
"""So many take as long as max pooling does for a value (measured, on the CPU)."""


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
    shelf = _Shelf(room)
    return _Recorder(shelf, up_to_noise=True), _Player(shelf, once=True)


def recorder_and_players(room: int) -> tuple[Carrier, Callable[[], Carrier]]:
    """For a pass, and for any number after it that repeat it up to where they differ.

    Args:
        room: As above.
    """
    shelf = _Shelf(room)
    return _Recorder(shelf, up_to_noise=False), lambda: _Player(shelf, once=False)


class _Recorder:
    """Runs every op, and keeps what costly ones returned."""

    def __init__(self, shelf: _Shelf, *, up_to_noise: bool) -> None:
        self._shelf = shelf
        self._up_to_noise = up_to_noise
        self._over: set[int] = set()

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        effort = 0.0 if batch in self._over else _effort(op, args, kwargs)
        output = op(*args, **kwargs)
        if not effort:
            return output
        fits = self._shelf.has_room(_size(output), effort)
        self._shelf.put(batch, _Kept.of(op, args, kwargs, output) if fits else None, effort)
        return output

    def noise_met(self, batch: int) -> None:
        if self._up_to_noise:
            self._over.add(batch)

    def forget(self) -> None:
        self._shelf.forget()


class _Player:
    """Hands out what was kept, in order, as long as ops and arguments are the same.

    Args:
        shelf: Where it is.
        once: Nobody else will ask: results leave the shelf, the rest at the first dropout.
    """

    def __init__(self, shelf: _Shelf, *, once: bool) -> None:
        self._shelf = shelf
        self._once = once
        self._next: Counter[int] = Counter()
        self._over: set[int] = set()

    def carry_out(self, batch: int, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if batch in self._over or not _effort(op, args, kwargs):
            return op(*args, **kwargs)
        place = self._shelf.place(batch, self._next[batch])
        self._next[batch] += 1
        kept = None if place is None else place.kept
        if place is None or kept is None:
            return op(*args, **kwargs)
        if self._once:
            place.kept = None
        if not kept.answers(op, args, kwargs):
            self._end(batch)
            return op(*args, **kwargs)
        # A pass may have gone on working on the result, or the model may hold it yet.
        if not kept.returned.fits(kept.output) or _is_held_elsewhere(kept.output):
            return op(*args, **kwargs)
        return kept.output if self._once else kept.output.detach()

    def noise_met(self, batch: int) -> None:
        if self._once:
            self._end(batch)

    def forget(self) -> None:
        self._shelf.forget()

    def _end(self, batch: int) -> None:
        self._over.add(batch)
        if self._once:
            self._shelf.forget(batch)


@dataclass(slots=True, eq=False)
class _Place:
    """Of one result; empty where that was not kept, or had to make room."""

    kept: _Kept | None


class _Shelf:
    """Results of every batch, in the order of its forward, within so many bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._rows: dict[int, list[_Place]] = {}
        self._cheapest: list[tuple[float, int, _Place]] = []
        """A heap by effort; numbered, so that places are never compared."""
        self._number = itertools.count()

    def place(self, batch: int, number: int) -> _Place | None:
        """Of the result of a batch's forward with a number; ``None`` beyond the last."""
        row = self._rows.get(batch, [])
        return row[number] if number < len(row) else None

    def has_room(self, size: int, effort: float) -> bool:
        """Make room, by what takes less effort for its size; whether there is enough now."""
        while size > self._room and self._cheapest and self._cheapest[0][0] < effort:
            place = heappop(self._cheapest)[2]
            if place.kept is not None:
                self._room += _size(place.kept.output)
                place.kept = None
        return size <= self._room

    def put(self, batch: int, kept: _Kept | None, effort: float) -> None:
        """Add a result, or an empty place for it."""
        place = _Place(kept)
        self._rows.setdefault(batch, []).append(place)
        if kept is not None:
            self._room -= _size(kept.output)
            heappush(self._cheapest, (effort, next(self._number), place))

    def forget(self, batch: int | None = None) -> None:
        """Drop everything, or what is left of a batch."""
        for row in self._rows.values() if batch is None else [self._rows.get(batch, [])]:
            for place in row:
                place.kept = None
            row.clear()


def _effort(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """About how many multiplications a value of the output takes.

    0 for an op that is as soon done as one has looked at what it is given, weights included.
    """
    if op not in _COSTLY:
        return 0.0
    tensors = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, Tensor)]
    # What was made in the forward, in inference mode; all else was there before it.
    made = max((each.numel() for each in tensors if each.is_inference()), default=0)
    weights = sum(each.numel() for each in tensors if not each.is_inference())
    if made < _SMALL or made * _USES < weights:
        return 0.0
    effort = _multiplications(op, tensors)
    return effort if effort >= _EFFORT else 0.0


def _multiplications(op: Op, tensors: Sequence[Tensor]) -> float:
    if op in _POOLINGS:
        return _AS_POOLING
    if op in _CONVOLUTIONS and len(tensors) > 1:
        return tensors[1].numel() / max(tensors[1].shape[0], 1)
    return tensors[0].shape[-1] if tensors[0].dim() else math.inf


def _size(output: Any) -> int:
    return output.untyped_storage().nbytes() if isinstance(output, Tensor) else 0


def _is_held_elsewhere(tensor: Tensor) -> bool:
    """Whether another tensor lies on its memory; one counts twice, with the wrapper made here."""
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) > 2


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """An op of a pass before: what it was given and what it returned."""

    op: Op
    given: list[Any]
    """Plain values, and a :class:`Look` for each tensor."""
    output: Tensor
    returned: Look

    @classmethod
    def of(
        cls, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> _Kept | None:
        """``None`` where a tensor is of a kind that is not compared."""
        leaves = tree_leaves((args, dict(kwargs)))
        if not all(is_plain(leaf) for leaf in (output, *leaves) if isinstance(leaf, Tensor)):
            return None
        given = [Look.at(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return cls(op, given, output.detach(), Look.at(output))

    def answers(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether this op with these arguments is the one that was kept."""
        leaves = tree_leaves((args, dict(kwargs)))
        return (
            op == self.op
            and len(leaves) == len(self.given)
            and all(
                each.fits(leaf) if isinstance(each, Look) else each == leaf
                for each, leaf in zip(self.given, leaves, strict=True)
            )
        )
