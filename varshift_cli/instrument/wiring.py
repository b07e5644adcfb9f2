"""Which dropout reaches which BatchNorm (BN): one small forward that carries names along.

Every tensor's storage carries the set of dropouts that have touched it since the last BN, and
whether weights lay between. An op passes the union of its inputs on; a BN takes note of what
arrives and starts afresh. This works in every container, since it sees ops, not modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from varshift_cli.instrument.calls import (
    BatchNormCall,
    DropoutCall,
    ModuleNoiseCall,
    NoiseCall,
    Op,
    normalise_by_batch,
)
from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.interception import Interception
from varshift_cli.instrument.liveness import Liveness
from varshift_cli.instrument.locations import caller_location
from varshift_cli.instrument.sites import BatchNormKey, NoiseKey
from varshift_cli.records import Batch, Case

_WEIGHT_OPS = frozenset(
    {
        "addbmm", "addmm", "addmv", "baddbmm", "bilinear", "bmm", "chain_matmul", "conv1d",
        "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "convolution", "dot", "einsum", "gru", "inner", "linear", "lstm", "matmul", "mkldnn_linear",
        "mm", "mv", "rnn_relu", "rnn_tanh", "scaled_dot_product_attention", "tensordot",
    }
)  # fmt: skip
"""Ops that mix the units of a tensor: what lies between is then case b."""


@dataclass(frozen=True, slots=True)
class BatchNormVisit:
    """A BN call: where it is, and what reaches it with no other BN between."""

    key: BatchNormKey
    location: str | None
    dropouts: tuple[tuple[NoiseKey, Case], ...]
    upstream: tuple[BatchNormKey, ...]
    batch_statistics: bool
    """Whether it normalises by the batch itself, although every flag says eval."""


@dataclass(frozen=True, slots=True)
class NoiseVisit:
    """A dropout call."""

    key: NoiseKey
    kind: str
    p: float | None
    location: str | None


@dataclass(frozen=True, slots=True)
class Wiring:
    """All calls of one forward, in execution order."""

    batch_norms: tuple[BatchNormVisit, ...]
    noises: tuple[NoiseVisit, ...]
    order: tuple[BatchNormKey | NoiseKey, ...] = ()
    """Both kinds of calls, as they began."""
    live_bytes: float = 0.0
    """The most that the forward holds at any BN call, per sample."""
    working_bytes: float = 0.0
    """The most that it holds at any op, per sample."""

    def reached(self) -> frozenset[BatchNormKey]:
        """BN calls that a dropout reaches, directly or through other BN."""
        found: set[BatchNormKey] = set()
        for visit in self.batch_norms:
            if visit.dropouts or found.intersection(visit.upstream):
                found.add(visit.key)
        return frozenset(found)

    def sources(self) -> dict[BatchNormKey, frozenset[NoiseKey]]:
        """The dropouts that reach each BN call, directly or through other BN."""
        found: dict[BatchNormKey, frozenset[NoiseKey]] = {}
        for visit in self.batch_norms:
            direct = frozenset(key for key, _case in visit.dropouts)
            found[visit.key] = direct.union(*(found.get(key, direct) for key in visit.upstream))
        return found

    def indirect_sources(self) -> dict[BatchNormKey, frozenset[NoiseKey]]:
        """The dropouts that reach each BN call through other BN."""
        found = self.sources()
        nothing: frozenset[NoiseKey] = frozenset()
        return {
            visit.key: nothing.union(*(found.get(key, nothing) for key in visit.upstream))
            for visit in self.batch_norms
        }


Tags = dict[Any, Case]
"""Dropout and BN calls that touch a tensor; the straightest way wins."""


def trace_wiring(instrumented: Instrumented, batch: Batch) -> Wiring:
    """Run one batch as deployed and note what reaches what."""
    instrumented.decide(batch)
    tracer = _Tracer()
    mode = Interception(tracer, instrumented.sites, instrumented.stack, 0, tracer.execute)
    with instrumented.guard(), mode:
        instrumented.call(batch)
    return Wiring(
        tuple(tracer.batch_norms),
        tuple(tracer.noises),
        tuple(tracer.order),
        tracer.liveness.parked_peak / max(batch.size, 1),
        tracer.liveness.peak / max(batch.size, 1),
    )


class _Tracer:
    """A regime that changes nothing, and an executor that carries tags along."""

    def __init__(self) -> None:
        self._tags: dict[int, Tags] = {}
        self.batch_norms: list[BatchNormVisit] = []
        self.noises: list[NoiseVisit] = []
        self.order: list[BatchNormKey | NoiseKey] = []
        self.liveness = Liveness()

    def execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out an op; its outputs inherit the tags of its inputs."""
        output = self.liveness.execute(op, args, kwargs)
        if isinstance(op, torch._ops.OpOverload):
            through = op._schema.name.partition("::")[2].strip("_") in _WEIGHT_OPS
            tags = self._union(tree_leaves((args, dict(kwargs))), through_weights=through)
            for tensor in tree_leaves(output):
                self._mark(tensor, tags)
        return output

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Note what arrives; what leaves carries only this BN's name."""
        self.order.append(call.key)
        self.liveness.parked()
        arrived = self._union([call.input], through_weights=False)
        self.batch_norms.append(
            BatchNormVisit(
                call.key,
                caller_location(),
                tuple((key, case) for key, case in arrived.items() if isinstance(key, NoiseKey)),
                tuple(key for key in arrived if isinstance(key, BatchNormKey)),
                call.training,
            )
        )
        output = normalise_by_batch(call) if call.training else call.as_deployed()
        self._mark(output, {call.key: Case.STRAIGHT})
        return output

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Mark the output of a noise op, or of a noise module once it has run."""
        self.order.append(call.key)
        location = caller_location()
        if isinstance(call, ModuleNoiseCall):
            place = len(self.noises)

            def then(output: Any) -> Any:
                # p may have been read off an op inside only now.
                visit = NoiseVisit(call.key, call.kind.name, call.p, location)
                self.noises.insert(place, visit)
                return self._noisy(output, call)

            call.then = then
            return call.off()
        self.noises.append(NoiseVisit(call.key, call.kind.name, call.p, location))
        output = call.off()
        inside = self._union(tree_leaves(call.input), through_weights=call.mixes)
        for leaf in tree_leaves(output):
            self._mark(leaf, inside)
        return self._noisy(output, call)

    def _noisy(self, output: Any, call: NoiseCall) -> Any:
        """The output with the noise's name on every tensor.

        A copy, since a noise that is off may return its very input.
        """
        if call.silent:
            return output
        case = Case.THROUGH_WEIGHTS if call.mixes else Case.STRAIGHT

        def named(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            tags = self._union([leaf], through_weights=False)
            copy = leaf if _is_in_place(call) else leaf.clone()
            self._mark(copy, {**tags, call.key: case})
            self.liveness.note(copy)
            return copy

        return tree_map(named, output)

    def _union(self, leaves: Sequence[Any], *, through_weights: bool) -> Tags:
        union: Tags = {}
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                for key, case in self._tags.get(_storage(leaf), {}).items():
                    straight = case is Case.STRAIGHT and not through_weights
                    if straight or key not in union:
                        union[key] = Case.STRAIGHT if straight else Case.THROUGH_WEIGHTS
        return union

    def _mark(self, tensor: Any, tags: Tags) -> None:
        if isinstance(tensor, Tensor):
            self._tags[_storage(tensor)] = tags


def _is_in_place(call: NoiseCall) -> bool:
    return isinstance(call, DropoutCall) and call.in_place


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
