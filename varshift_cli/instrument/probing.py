"""Two questions that three small forwards answer.

Do two passes in eval, with different seeds, agree? If not, something random (or a state that
changes) ignores ``eval()``. And does anything but the known noise happen when every flag says
train? If so, what training sees is not what the train pass measured.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from varshift_cli.instrument.calls import BatchNormCall, NoiseCall, Op, normalise_by_batch
from varshift_cli.instrument.draws import is_random
from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.interception import Interception
from varshift_cli.instrument.locations import caller_location
from varshift_cli.instrument.noise_ops import NOISE_OPS
from varshift_cli.instrument.sites import BatchNormKey
from varshift_cli.records import Batch

_RTOL_CUDA = 1e-3


@dataclass(frozen=True, slots=True)
class RandomEvent:
    """Something random outside the known noise.

    ``op`` is an aten op, or the generator that was drawn from; ``before`` the number of BN calls
    that came before it in the forward.
    """

    op: str
    module: str
    kind: str
    location: str | None
    before: int


@dataclass(frozen=True, slots=True)
class Probe:
    """What the probing forwards showed.

    Attributes:
        parted_at: The BN call at which two eval passes parted; ``None`` when they agree.
        outputs_part: Whether at least their outputs did.
        always_random: Random events in eval.
        unregistered: Random events in train alone.
        differs_at: The first BN call whose input differs with every flag in train.
        suspect: BN calls whose T is not what training sees.
        failed: Why the forward with every flag in train could not be run.
    """

    parted_at: BatchNormKey | None = None
    outputs_part: bool = False
    always_random: tuple[RandomEvent, ...] = ()
    unregistered: tuple[RandomEvent, ...] = ()
    differs_at: BatchNormKey | None = None
    suspect: frozenset[BatchNormKey] = frozenset()
    failed: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One probing forward."""

    inputs: Mapping[BatchNormKey, Tensor]
    events: tuple[RandomEvent, ...]
    outputs: Sequence[Tensor]


def probe(instrumented: Instrumented, batch: Batch) -> Probe:
    """Run the probing forwards on a few samples."""
    first, second = (_watched(instrumented, batch, seed) for seed in (0, 1))
    parted = _first_difference(first, second)
    outputs_part = parted is None and not _same_all(first.outputs, second.outputs)
    found = Probe(parted, outputs_part, first.events)
    try:
        with instrumented.stack.all_in_training():
            third = _watched(instrumented, batch, 0)
    except Exception as error:  # noqa: BLE001 - many models want targets in training
        told = (str(error).strip().splitlines() or [""])[0]
        return Probe(parted, outputs_part, first.events, failed=f"{type(error).__name__}: {told}")
    known = {(event.op, event.module) for event in first.events}
    new = tuple(event for event in third.events if (event.op, event.module) not in known)
    # Where eval passes part by themselves, a difference from them says nothing.
    differs = None if parted is not None else _first_difference(first, third)
    order = list(first.inputs)
    starts = [event.before for event in new]
    starts += [order.index(differs)] if differs is not None else []
    suspect = frozenset(order[min(starts) :]) if starts else frozenset()
    return Probe(found.parted_at, found.outputs_part, found.always_random, new, differs, suspect)


def _watched(instrumented: Instrumented, batch: Batch, seed: int) -> _Seen:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what is watched
    python, numpy = random.getstate(), _numpy_state()
    watch = _Watch(instrumented)
    mode = Interception(watch, instrumented.sites, instrumented.stack, 0, watch.execute)
    with instrumented.guard(), mode:
        output = instrumented.call(batch)
    events = list(watch.events)
    if random.getstate() != python:
        events.append(RandomEvent("random", "", "", None, 0))
    if _numpy_state() != numpy:
        events.append(RandomEvent("numpy.random", "", "", None, 0))
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return _Seen(watch.inputs, tuple(events), leaves)


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return bytes(state["key"]), int(state["pos"])


class _Watch:
    """As deployed, known noise off; notes what enters BN, and random ops."""

    def __init__(self, instrumented: Instrumented) -> None:
        self._stack = instrumented.stack
        self.inputs: dict[BatchNormKey, Tensor] = {}
        self.events: list[RandomEvent] = []

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Buffers whatever the flag says, unless eval itself goes by the batch."""
        self.inputs[call.key] = call.input.clone()
        if call.training and not self._stack.in_training:
            return normalise_by_batch(call)
        return call.as_deployed()

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Off."""
        return call.off()

    def execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out an op; note it if it draws."""
        if is_random(op) and op not in NOISE_OPS:
            path, kind = self._stack.current()
            name = str(getattr(op, "_schema", op)).partition("(")[0].partition("::")[2]
            self.events.append(
                RandomEvent(
                    name.partition(".")[0].rstrip("_"),
                    path,
                    kind,
                    caller_location(),
                    len(self.inputs),
                )
            )
        return op(*args, **kwargs)


def _first_difference(one: _Seen, other: _Seen) -> BatchNormKey | None:
    """The first BN call that both saw, with different inputs."""
    for key, value in one.inputs.items():
        if key in other.inputs and not _same(value, other.inputs[key]):
            return key
    return None


def _same_all(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.is_cuda and one.is_floating_point():
        return torch.allclose(one, other, rtol=_RTOL_CUDA, atol=1e-5, equal_nan=True)
    if one.is_floating_point():
        return torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    return torch.equal(one, other)
