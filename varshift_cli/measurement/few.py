"""A few samples for passes that are run many times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

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
    chosen, before = _chosen([batch.size for batch in batches], count, skip, cut=regroup)
    if not chosen:
        return (), samples, 0
    picked = [batches[index] for index in chosen]
    keys = Samples(
        tuple(samples.keys[index] for index in chosen),
        tuple(samples.groups[index] for index in chosen),
        samples.count,
    )
    joined, joined_keys = join_batches(picked, keys, len(picked) if regroup else 1)
    if regroup and len(joined) == 1 and joined_keys.keys[0].shape[0] == joined[0].size:
        part, rows = _rows(joined[0], slice(skip - before, skip - before + count))
        joined, joined_keys = (part,), Samples((joined_keys.keys[0][rows],), (), samples.count)
    return tuple(joined), _grouped(joined_keys), sum(batch.size for batch in joined)


def _chosen(sizes: Sequence[int], count: int, skip: int, *, cut: bool) -> tuple[list[int], int]:
    """Which batches to take, and how many samples lie before the first of them."""
    starts = list(accumulate(sizes, initial=0))[: len(sizes)]
    if cut:
        inside = [
            index
            for index, start in enumerate(starts)
            if start < skip + count and start + sizes[index] > skip
        ]
    else:
        unused = [index for index, start in enumerate(starts) if start >= skip]
        first = starts[unused[0]] if unused else 0
        inside = [index for index in unused if starts[index] < first + count]
    return inside, starts[inside[0]] if inside else 0


def _rows(batch: Batch, rows: slice) -> tuple[Batch, slice]:
    """Some rows of a batch whose every tensor has one row per sample."""
    rows = slice(rows.start, min(rows.stop, batch.size))
    args, kwargs = tree_map(
        lambda leaf: leaf[rows] if isinstance(leaf, Tensor) else leaf,
        (batch.args, dict(batch.kwargs)),
    )
    return Batch(args, kwargs, None, rows.stop - rows.start), rows


def _grouped(samples: Samples) -> Samples:
    """Equal groups of these samples, in order of their keys."""
    everyone = torch.cat(samples.keys)
    total = everyone.shape[0]
    count = group_count(total)
    rank = torch.empty_like(everyone)
    rank[torch.argsort(everyone)] = torch.arange(total, device=everyone.device)
    groups = torch.split(rank * count // total, [key.shape[0] for key in samples.keys])
    return Samples(samples.keys, tuple(groups), count)
