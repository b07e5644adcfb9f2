"""How much memory a forward holds, at work and while it waits at a BatchNorm (BN) call.

In lockstep every batch's forward is parked at the same BN call, each with the activations that it
still needs. A small forward that watches tensors come and go tells how much that is.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from varshift_cli.instrument.calls import Op


class Liveness:
    """Notes which storages that a forward made are alive.

    Counted are results of ops, each storage once; the input and the weights are there anyway.

    Attributes:
        parked_peak: The most bytes that were alive at any BN call.
        peak: The most that were alive at any op.
    """

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._total = 0
        self.parked_peak = 0
        self.peak = 0

    def execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out an op and note its results."""
        output = op(*args, **kwargs)
        given = {_place(leaf) for leaf in tree_leaves((args, dict(kwargs)))}
        for tensor in tree_leaves(output):
            # A view of, or a write into, what came from outside holds nothing new.
            if _place(tensor) in self._sizes or _place(tensor) not in given:
                self.note(tensor)
        return output

    def parked(self) -> None:
        """The forward is at a BN call: what is alive is what it would hold while it waits."""
        self.parked_peak = max(self.parked_peak, self._total)

    def note(self, tensor: Any) -> None:
        """Something new, until it goes."""
        place = _place(tensor)
        if place is None:
            return
        self._holders[place] = self._holders.get(place, 0) + 1
        size = tensor.untyped_storage().nbytes()
        self._total += size - self._sizes.get(place, 0)
        self._sizes[place] = size
        self.peak = max(self.peak, self._total)
        weakref.finalize(tensor, self._drop, place)

    def _drop(self, place: int) -> None:
        self._holders[place] -= 1
        if self._holders[place] == 0:
            del self._holders[place]
            self._total -= self._sizes.pop(place)


def _place(leaf: object) -> int | None:
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
        return None
    return leaf.untyped_storage().data_ptr()
