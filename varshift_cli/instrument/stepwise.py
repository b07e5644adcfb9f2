"""The slow way to population statistics: one BN layer at a time.

For forwards whose control flow depends on the data, so that batches do not reach the same BN
calls and cannot wait for each other in lockstep. Every round runs each batch up to its first BN
call that is not settled yet; a call is settled once every batch that visits it has got there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from varshift_cli.instrument.calls import BatchNormCall, NoiseCall
from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.lockstep import ForwardRaised, Merging
from varshift_cli.instrument.sites import BatchNormKey
from varshift_cli.records import Batch


class _Stop(BaseException):
    """Leaves a forward at a BN call; no ``except Exception`` of the model may catch it."""


class _Route:
    """Notes which BN calls a batch visits, as deployed."""

    def __init__(self) -> None:
        self.visited: list[BatchNormKey] = []

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        self.visited.append(call.key)
        return call.as_deployed()

    def noise(self, call: NoiseCall, batch: int) -> Any:
        return call.off()


class _UpToUnsettled:
    """Normalises settled calls; at the first other one collects, and leaves the forward."""

    def __init__(self, merging: Merging, settled: set[BatchNormKey]) -> None:
        self._merging = merging
        self._settled = settled
        self._collected: set[tuple[BatchNormKey, int]] = set()
        self.reached: BatchNormKey | None = None

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        if call.key in self._settled:
            return self._merging.normalise(call)
        if (call.key, batch) not in self._collected:
            self._collected.add((call.key, batch))
            self._merging.collect(call, batch)
        self.reached = call.key
        raise _Stop

    def noise(self, call: NoiseCall, batch: int) -> Any:
        return self._merging.noise(call, batch)


def run_stepwise(
    instrumented: Instrumented,
    merging: Merging,
    batches: Sequence[tuple[int, Batch]],
    finished: Callable[[int, object], None],
) -> None:
    """As :func:`run_lockstep`, at the cost of a forward per BN layer and batch."""
    routes = {index: _route(instrumented, index, batch) for index, batch in batches}
    settled: set[BatchNormKey] = set()
    regime = _UpToUnsettled(merging, settled)
    frontier: dict[int, BatchNormKey] = {}
    todo = dict(batches)
    while todo:
        for index, batch in todo.items():
            reached = _advance(instrumented, regime, index, batch, finished)
            frontier.pop(index, None)
            if reached is not None:
                frontier[index] = reached
        for key in _ready(frontier, routes):
            merging.settle(key)
            settled.add(key)
        everyone = dict(batches)
        todo = {index: everyone[index] for index, key in frontier.items() if key in settled}


def _advance(
    instrumented: Instrumented,
    regime: _UpToUnsettled,
    index: int,
    batch: Batch,
    finished: Callable[[int, object], None],
) -> BatchNormKey | None:
    """Run one batch to its first unsettled call (returned) or its end (None)."""
    regime.reached = None
    try:
        output: Any = instrumented.run(regime, batch, index)
    except _Stop:
        return regime.reached
    except Exception as error:
        raise ForwardRaised(index) from error
    finished(index, output)
    return None


def _route(instrumented: Instrumented, index: int, batch: Batch) -> list[BatchNormKey]:
    route = _Route()
    try:
        instrumented.run(route, batch, index)
    except Exception as error:
        raise ForwardRaised(index) from error
    return route.visited


def _ready(
    frontier: Mapping[int, BatchNormKey],
    routes: Mapping[int, Sequence[BatchNormKey]],
) -> list[BatchNormKey]:
    """Calls at which everyone who will come has arrived; the fullest one if there is none."""
    arrived: dict[BatchNormKey, set[int]] = {}
    for index, key in frontier.items():
        arrived.setdefault(key, set()).add(index)
    ready = [
        key
        for key, present in arrived.items()
        if all(
            index in present or index not in frontier or key not in _ahead(route, frontier[index])
            for index, route in routes.items()
        )
    ]
    if ready or not arrived:
        return ready
    return [Counter(frontier.values()).most_common(1)[0][0]]


def _ahead(route: Sequence[BatchNormKey], position: BatchNormKey) -> Sequence[BatchNormKey]:
    """What a batch has still before it; all of its route if it left the route."""
    return route[route.index(position) :] if position in route else route
