"""Whether batches come in an order: samples of a kind together, batch after batch.

With class labels: nearly every batch holds one class. Without: the inputs vary more between
batches than batches dealt at random ever do. Per feature that is the F statistic of batches; its
law is not looked up but drawn, by dealing the same samples anew, as features go together and
samples are far from normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from varshift_cli.records import Batch

LEAST_BATCHES = 3
"""Batches below which nothing is said of their order."""
_FEATURES = 256
_DEALS = 99
_FAR = 2.0
"""F from which an order is worth a word, certain as a smaller one may be."""
_PURE, _MIXED = 0.9, 0.6
"""Share of the commonest class: within batches, and over all."""


@dataclass(frozen=True, slots=True)
class Order:
    """How batches are ordered."""

    by_class: bool
    """Nearly every batch holds one class; else it is the inputs that tell."""
    ratio: float | None
    """F: how much the inputs vary between batches, where 1 is what mixed ones do."""


def order_of(batches: Sequence[Batch]) -> Order | None:
    """The order of batches; ``None`` where they could as well have been dealt at random."""
    if len(batches) < LEAST_BATCHES:
        return None
    labels = class_labels(batches)
    if labels is not None and _is_by_class(labels):
        return Order(by_class=True, ratio=None)
    rows = _rows(batches)
    if rows is None:
        return None
    index = torch.repeat_interleave(torch.tensor([batch.size for batch in batches]))
    ratio = _between_batches(rows, index)
    generator = torch.Generator().manual_seed(0)
    deals = (torch.randperm(len(index), generator=generator) for _ in range(_DEALS))
    if ratio < _FAR or any(_between_batches(rows, index[deal]) >= ratio for deal in deals):
        return None
    return Order(by_class=False, ratio=ratio)


def class_labels(batches: Sequence[Batch]) -> list[Tensor] | None:
    """The labels of every batch, if all of them have whole numbers, one for each sample."""
    found = [batch.labels for batch in batches if _are_classes(batch.labels, batch.size)]
    return found if len(found) == len(batches) else None


def _are_classes(labels: object, size: int) -> TypeGuard[Tensor]:
    return (
        isinstance(labels, Tensor)
        and labels.shape == (size,)
        and not labels.is_floating_point()
        and not labels.is_complex()
    )


def _is_by_class(labels: Sequence[Tensor]) -> bool:
    pure = sum(_commonest(each) * len(each) for each in labels) / sum(map(len, labels))
    return pure >= _PURE and _commonest(torch.cat(list(labels))) <= _MIXED


def _commonest(labels: Tensor) -> float:
    """Share of the commonest class."""
    return int(torch.unique(labels, return_counts=True)[1].max()) / len(labels)


def _rows(batches: Sequence[Batch]) -> Tensor | None:
    """Up to 256 features of every sample, shape (N, F), each of variance 1.

    ``None`` where the first input is not one floating tensor of rows of one size.
    """
    found = []
    for batch in batches:
        leaves = tree_leaves((batch.args, dict(batch.kwargs)))
        first = next((leaf for leaf in leaves if isinstance(leaf, Tensor)), None)
        if first is None or first.dim() < 2 or first.shape[0] != batch.size:
            return None
        if not first.is_floating_point():
            return None
        flat = first.detach().flatten(1)
        picked = torch.linspace(0, flat.shape[1] - 1, min(_FEATURES, flat.shape[1])).long()
        found.append(flat[:, picked.to(flat.device)].double().cpu())
    if len({each.shape[1] for each in found}) != 1:
        return None
    rows = torch.cat(found)
    spread = rows.std(dim=0)
    kept = spread > 0.0
    return (rows[:, kept] - rows[:, kept].mean(dim=0)) / spread[kept] if bool(kept.any()) else None


def _between_batches(rows: Tensor, index: Tensor) -> float:
    """F over all features together: 1 in the mean where batches are dealt at random."""
    batches = int(index.max()) + 1
    count = torch.bincount(index, minlength=batches).double().unsqueeze(1)
    mean = torch.zeros(batches, rows.shape[1], dtype=rows.dtype).index_add_(0, index, rows) / count
    between = float((count * mean.square()).sum()) / (batches - 1)
    within = float((rows - mean[index]).square().sum()) / max(len(rows) - batches, 1)
    return between / max(within, 1e-30)
