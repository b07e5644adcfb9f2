"""Cut calibration data into parts, so that a repair is judged on samples it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from varshift_cli.measurement.regroup import join_batches
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch

FOLDS = 5
_WHOLE_BATCHES = 2 * FOLDS
"""From this many batches on a loader's batches stay whole: they may be meant to go together."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One part held out, and the rest.

    Attributes:
        train: What statistics are taken from.
        test: What is held out.
        rows: Index of each held-out sample among all samples, in the order of ``test``.
    """

    train: tuple[Batch, ...]
    test: tuple[Batch, ...]
    rows: Tensor


def cut_folds(
    batches: Sequence[Batch],
    samples: Samples,
    *,
    regroup: bool,
    whole: bool = False,
    count: int = FOLDS,
) -> tuple[Fold, ...]:
    """Deal all samples to ``count`` parts by their keys, so whatever their order or batches.

    Where samples cannot be told apart within a batch (graphs, say), whole batches are dealt. Fewer
    parts, or none, come back where there is less to deal.

    Args:
        batches: All data.
        samples: Their keys.
        regroup: Whether batches were cut by varshift, so that other cuts are as good.
        whole: Whether the model takes these batches only, so that none may be cut.
        count: Parts wanted.
    """
    singly = not whole and all(
        keys.shape[0] == batch.size for keys, batch in zip(samples.keys, batches, strict=True)
    )
    if not singly or (not regroup and len(batches) >= _WHOLE_BATCHES):
        parts = _deal_batches(samples, count)
    else:
        parts = _deal_samples(samples, count)
    numbers = sorted({number for part in parts for number in part.tolist()})
    if len(numbers) < 2:
        return ()
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + batch.size)
    return tuple(
        _fold(batches, parts, starts, number, regroup=regroup and not whole) for number in numbers
    )


def _deal_samples(samples: Samples, count: int) -> list[Tensor]:
    """The part of every sample, batch by batch."""
    keys = torch.cat(list(samples.keys)).cpu()
    rank = torch.empty_like(keys)
    rank[torch.argsort(keys)] = torch.arange(len(keys))
    return list(torch.split(rank % count, [key.shape[0] for key in samples.keys]))


def _deal_batches(samples: Samples, count: int) -> list[Tensor]:
    """The part of every batch, as a tensor of one value."""
    order = sorted(range(len(samples.keys)), key=lambda index: int(samples.keys[index].min()))
    rank = {index: place for place, index in enumerate(order)}
    return [torch.tensor([rank[index] % count]) for index in range(len(samples.keys))]


def _fold(
    batches: Sequence[Batch],
    parts: Sequence[Tensor],
    starts: Sequence[int],
    number: int,
    *,
    regroup: bool,
) -> Fold:
    train: list[Batch] = []
    test: list[Batch] = []
    rows: list[Tensor] = []
    for batch, part, start in zip(batches, parts, starts, strict=False):
        held = part == number
        if len(held) == 1 or bool(held.all()) or not bool(held.any()):
            (test if bool(held[0]) else train).append(batch)
            if bool(held[0]):
                rows.append(torch.arange(start, start + batch.size))
            continue
        train.append(_take(batch, ~held))
        test.append(_take(batch, held))
        rows.append(start + held.nonzero().flatten())
    # Held-out parts of a batch are small; together they are about a batch again.
    joined = _joined(test) if regroup else tuple(test)
    return Fold(tuple(train), joined, torch.cat(rows))


def _joined(test: Sequence[Batch]) -> tuple[Batch, ...]:
    nobody = Samples.anonymous(len(test))
    return tuple(join_batches(test, nobody, min(FOLDS, len(test)))[0] if len(test) > 1 else test)


def _take(batch: Batch, mask: Tensor) -> Batch:
    def take(leaf: object) -> object:
        return leaf[mask.to(leaf.device)] if isinstance(leaf, Tensor) else leaf

    args, kwargs, labels = tree_map(take, (batch.args, dict(batch.kwargs), batch.labels))
    return Batch(args, kwargs, labels, int(mask.sum()))
