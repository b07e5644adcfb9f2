"""Join small batches for the lockstep passes, whose result does not depend on how they are cut.

Lockstep pays for every op of every batch; a small net at a small batch size spends more on that
than on arithmetic. Only batches that varshift cut itself are joined: what a loader yields may be
meant to go together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from varshift_cli.heap import is_freed_memory_kept
from varshift_cli.measurement.memory import granted
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch

LARGE_BYTES = 192 << 20
"""What the forward of joined batches may hold, where the process keeps the memory it frees. What an
op costs beside its arithmetic (weights laid out anew, a stop at each of them) is small by then."""
SMALL_BYTES = 8 << 20
"""The same where the system clears the memory of every large block anew: it stays in the cache."""
_SHARE = 8
"""Part of what all forwards may hold together that the one at work may hold."""


def join_factor(
    working_bytes: float, batches: int, memory: int | None, device: torch.device | str = "cpu"
) -> int:
    """How many batches to join: about as many to each.

    Args:
        working_bytes: The most that the forward of one batch holds at any op.
        batches: There are.
        memory: Bytes that all forwards may hold together; half of what is free by default.
        device: Where they live.
    """
    is_kept = torch.device(device).type == "cuda" or is_freed_memory_kept()
    most = min(LARGE_BYTES if is_kept else SMALL_BYTES, granted(memory, device) // _SHARE)
    factor = max(1, min(batches, int(most / max(working_bytes, 1.0))))
    return math.ceil(batches / math.ceil(batches / factor))


def join_batches(
    batches: Sequence[Batch], samples: Samples, factor: int
) -> tuple[Sequence[Batch], Samples]:
    """Join every ``factor`` consecutive batches, and their samples' keys and groups.

    Batches that do not stack (other structure, or tensors without a row per sample) are returned
    as they are.
    """
    if factor == 1 or not _stackable(batches):
        return batches, samples
    runs = [range(at, min(at + factor, len(batches))) for at in range(0, len(batches), factor)]
    return (
        tuple(_join([batches[index] for index in run]) for run in runs),
        Samples(
            tuple(torch.cat([samples.keys[index] for index in run]) for run in runs),
            tuple(torch.cat([samples.groups[index] for index in run]) for run in runs),
            samples.count,
        ),
    )


def cut_batches(
    batches: Sequence[Batch], samples: Samples, size: int
) -> tuple[Sequence[Batch], Samples] | None:
    """Cut all samples into batches of ``size``, in order of their keys: at random, yet repeatable.

    What is left over is left out. ``None`` when the batches do not stack.
    """
    order = torch.argsort(torch.cat(samples.keys))
    runs = [order[at : at + size] for at in range(0, len(order) - size + 1, size)]
    return deal_batches(batches, samples, runs)


def deal_batches(
    batches: Sequence[Batch], samples: Samples, runs: Sequence[Tensor]
) -> tuple[Sequence[Batch], Samples] | None:
    """Deal all samples into other batches: one for each run of their indices, in its order.

    ``None`` when the batches do not stack.
    """
    if not _stackable(batches):
        return None
    whole = _join(batches)
    keys, groups = torch.cat(samples.keys), torch.cat(samples.groups)
    leaves, structure = tree_flatten((whole.args, dict(whole.kwargs)))
    cut = []
    for run in runs:
        args, kwargs = tree_unflatten([leaf[run.to(leaf.device)] for leaf in leaves], structure)
        cut.append(Batch(args, kwargs, None, len(run)))
    return tuple(cut), Samples(
        tuple(keys[run] for run in runs), tuple(groups[run] for run in runs), samples.count
    )


def _stackable(batches: Sequence[Batch]) -> bool:
    shapes = set()
    for batch in batches:
        leaves, structure = tree_flatten((batch.args, dict(batch.kwargs)))
        if not all(_has_rows(leaf, batch.size) for leaf in leaves):
            return False
        shapes.add((str(structure), tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)))
    return len(shapes) == 1


def _has_rows(leaf: object, size: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == size


def _join(batches: Sequence[Batch]) -> Batch:
    flat = [tree_flatten((batch.args, dict(batch.kwargs))) for batch in batches]
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    args, kwargs = tree_unflatten([torch.cat(column) for column in columns], flat[0][1])
    return Batch(args, kwargs, None, sum(batch.size for batch in batches))
