"""How much memory a forward holds on to while it waits at a BatchNorm (BN) call.

In lockstep every batch's forward is parked at the same BN call, each with the activations that it
still needs. One small forward that watches tensors come and go tells how much that is.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from varshift_cli.instrument.calls import BatchNormCall, NoiseCall, Op, normalise_by_batch
from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.interception import Interception
from varshift_cli.records import Batch


def live_bytes(instrumented: Instrumented, batch: Batch) -> int:
    """The most that one forward of this batch keeps alive at any BN call, in bytes.

    Counted are results of ops, each storage once; the input and the weights are there anyway.
    """
    watch = _Watch()
    mode = Interception(watch, instrumented.sites, instrumented.stack, 0, watch.execute)
    with instrumented.guard(), mode:
        instrumented.call(batch)
    return watch.peak


class _Watch:
    """A regime that changes nothing, and an executor that notes which storages are alive."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self.peak = 0

    def execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out an op and note its results."""
        output = op(*args, **kwargs)
        given = {_place(leaf) for leaf in tree_leaves((args, dict(kwargs)))}
        for tensor in tree_leaves(output):
            # A view of, or a write into, what came from outside holds nothing new.
            if _place(tensor) in self._sizes or _place(tensor) not in given:
                self._note(tensor)
        return output

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """What is alive here is what a parked forward holds."""
        self.peak = max(self.peak, sum(self._sizes.values()))
        return normalise_by_batch(call) if call.training else call.as_deployed()

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Off: a mask takes little, and the output takes its input's place."""
        return call.off()

    def _note(self, tensor: Tensor) -> None:
        place = _place(tensor)
        if place is None:
            return
        self._holders[place] = self._holders.get(place, 0) + 1
        self._sizes[place] = tensor.untyped_storage().nbytes()
        weakref.finalize(tensor, self._drop, place)

    def _drop(self, place: int) -> None:
        self._holders[place] -= 1
        if self._holders[place] == 0:
            del self._holders[place], self._sizes[place]


def _place(leaf: object) -> int | None:
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
        return None
    return leaf.untyped_storage().data_ptr()
