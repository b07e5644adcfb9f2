"""All batches advance together and are normalised by their merged statistics.

The population statistics of BN layer k depend on how layers 1..k-1 normalise, so one layer cannot
be settled before the ones above it. In lockstep every forward pauses at each BN call; when all
have arrived, their moments are merged and all go on, normalised by the merged statistics: exact
in one pass, at any batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from varshift_cli.instrument.calls import BatchNormCall, NoiseCall
from varshift_cli.instrument.forwards import AtOp, Instrumented, Pause, PausedForward, Raised
from varshift_cli.instrument.prefix import Carrier
from varshift_cli.instrument.sites import BatchNormKey
from varshift_cli.records import Batch


class Merging(Protocol):
    """What lockstep needs to know about the statistics that it merges."""

    def collect(self, call: BatchNormCall, batch: int) -> None:
        """Take in one batch's input of a BN call."""

    def settle(self, key: BatchNormKey) -> None:
        """Every batch has been collected: fix the statistics of this call."""

    def normalise(self, call: BatchNormCall) -> Tensor:
        """BN's output by the settled statistics."""

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """The dropout's output."""


class Diverged(Exception):  # noqa: N818 - an answer to the caller, not an error
    """Batches reached different BN calls: control flow depends on the data."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Pausing:
    """The regime of a paused forward: BN calls come out as they are, for lockstep to answer."""

    def __init__(self, merging: Merging, carrier: Carrier) -> None:
        self._merging, self._carrier = merging, carrier

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        raise AssertionError("answered by lockstep, never carried out")

    def noise(self, call: NoiseCall, batch: int) -> Any:
        if not call.silent:
            self._carrier.noise_met(batch)
        return self._merging.noise(call, batch)


class _Alone(_Pausing):
    """The regime of a single batch: no one to wait for."""

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        self._merging.collect(call, batch)
        self._merging.settle(call.key)
        return self._merging.normalise(call)


class ForwardRaised(Exception):  # noqa: N818 - carries the model's own error and its batch
    """A forward raised; ``__cause__`` is its error."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self.batch = batch

    @property
    def error(self) -> BaseException:
        """What the model raised."""
        return self.__cause__ or self


def run_lockstep(
    instrumented: Instrumented,
    merging: Merging,
    batches: Sequence[tuple[int, Batch]],
    finished: Callable[[int, object], None],
    carrier: Carrier,
) -> None:
    """Run the forwards of all batches in lockstep.

    Args:
        instrumented: The model.
        merging: Collects and settles the statistics.
        batches: (index, batch) of each.
        finished: Told (index, output) as each forward ends.
        carrier: Carries out their ops.

    Raises:
        Diverged: Batches do not reach the same BN calls in the same order.
        ForwardRaised: A forward raised.
    """
    if len(batches) == 1:
        index, batch = batches[0]
        execute = partial(carrier.carry_out, index)
        try:
            output = instrumented.run(_Alone(merging, carrier), batch, index, execute)
        except Exception as error:
            raise ForwardRaised(index) from error
        finished(index, output)
        return
    _Scheduler(instrumented, merging, batches, finished, carrier).run()


class _Scheduler:
    """Drives all forwards, one at a time, from BN call to BN call."""

    def __init__(
        self,
        instrumented: Instrumented,
        merging: Merging,
        batches: Sequence[tuple[int, Batch]],
        finished: Callable[[int, object], None],
        carrier: Carrier,
    ) -> None:
        pausing = _Pausing(merging, carrier)
        self._carrier = carrier
        self._answer = pausing.batch_norm
        self._merging = merging
        self._finished = finished
        self._guard = instrumented.guard()
        self._forwards = [
            PausedForward(instrumented, pausing, batch, index) for index, batch in batches
        ]

    def run(self) -> None:
        try:
            try:
                self._drive()
            finally:
                self._abandon()
        except BaseException:
            # An interrupt may strike right before the forwards are abandoned.
            self._abandon()
            raise

    def _abandon(self) -> None:
        for forward in self._forwards:
            forward.abandon()

    def _drive(self) -> None:
        parked: list[tuple[PausedForward, BatchNormCall]] = []
        # Ops arrive from below autograd, and must be carried out there: a view of a parameter
        # made above it cannot be handed back to the forward that asked for it.
        with self._guard, torch._C._AutoDispatchBelowADInplaceOrView():
            for forward in self._forwards:
                self._advance(forward, forward.start(), parked)
            while parked:
                parked = self._step(parked)

    def _step(
        self, parked: list[tuple[PausedForward, BatchNormCall]]
    ) -> list[tuple[PausedForward, BatchNormCall]]:
        """Settle the BN call at which all wait, and drive each on to its next."""
        keys = {call.key for _, call in parked}
        if len(keys) > 1 or len(parked) < len(self._forwards):
            raise Diverged(min(keys).name)
        self._merging.settle(keys.pop())
        arrived: list[tuple[PausedForward, BatchNormCall]] = []
        # Back and forth: whoever came last goes on first, its data still in the cache.
        while parked:
            forward, call = parked.pop()
            output = self._merging.normalise(call)
            del call
            self._advance(forward, forward.resume(output), arrived)
        return arrived

    def _advance(
        self,
        forward: PausedForward,
        pause: Pause,
        parked: list[tuple[PausedForward, BatchNormCall]],
    ) -> None:
        """Carry out ops until the forward parks at a BN call or ends."""
        while isinstance(pause, AtOp):
            if pause.op == self._answer:
                call: BatchNormCall = pause.args[0]
                self._merging.collect(call, forward.index)
                parked.append((forward, call))
                return
            pause = self._carry_out(forward, pause)
        if isinstance(pause, Raised):
            raise ForwardRaised(forward.index) from pause.error
        self._finished(forward.index, pause.output)

    def _carry_out(self, forward: PausedForward, pause: AtOp) -> Pause:
        try:
            result = self._carrier.carry_out(forward.index, *pause)
        except Exception as error:  # noqa: BLE001 - the model may expect and catch it
            return forward.fail(error)
        return forward.resume(result)
