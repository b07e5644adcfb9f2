"""A few samples for passes that are run many times."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from varshift_cli.measurement.regroup import join_batches
from varshift_cli.measurement.samples import Samples, group_count
from varshift_cli.records import Batch


def few_samples(
    batches: Sequence[Batch], samples: Samples, count: int, *, skip: int = 0, regroup: bool
) -> tuple[tuple[Batch, ...], Samples, int]:
    """About ``count`` samples after the first ``skip`` ones, grouped afresh.

    Args:
        batches: All calibration batches.
        samples: Their keys; masks stay bound to them.
        count: How many samples are wanted.
        skip: How many were used before.
        regroup: Whether batches may be cut and joined; else whole batches are taken.

    Returns:
        The batches (none when all were used before), their samples, and how many they are.
    """
    chosen: list[int] = []
    at = found = 0
    for index, batch in enumerate(batches):
        if at >= skip and found < count:
            chosen.append(index)
            found += batch.size
        at += batch.size
    if not chosen:
        return (), samples, 0
    picked = [batches[index] for index in chosen]
    keys = Samples(
        tuple(samples.keys[index] for index in chosen),
        tuple(samples.groups[index] for index in chosen),
        samples.count,
    )
    joined, joined_samples = join_batches(picked, keys, len(picked) if regroup else 1)
    if regroup and len(joined) == 1 and joined[0].size > count:
        joined, joined_samples = _first(joined[0], joined_samples, count)
    return joined, _grouped(joined_samples), sum(batch.size for batch in joined)


def _first(batch: Batch, samples: Samples, count: int) -> tuple[tuple[Batch, ...], Samples]:
    if samples.keys[0].shape[0] != batch.size:
        return (batch,), samples
    args, kwargs = tree_map(
        lambda leaf: leaf[:count] if isinstance(leaf, Tensor) else leaf,
        (batch.args, dict(batch.kwargs)),
    )
    cut = Samples((samples.keys[0][:count],), (samples.groups[0][:count],), samples.count)
    return (Batch(args, kwargs, None, count),), cut


def _grouped(samples: Samples) -> Samples:
    """Equal groups of these samples, in order of their keys."""
    everyone = torch.cat(samples.keys)
    total = everyone.shape[0]
    count = group_count(total)
    rank = torch.empty_like(everyone)
    rank[torch.argsort(everyone)] = torch.arange(total, device=everyone.device)
    groups = torch.split(rank * count // total, [key.shape[0] for key in samples.keys])
    return Samples(samples.keys, tuple(groups), count)
