"""Who the samples are: a key for each, and the group of its moments.

Both follow from the content of a sample alone, so that masks, groups and every figure stay the
same when samples are permuted or batched differently.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from varshift_cli.records import Batch

MIN_GROUPS, MAX_GROUPS = 8, 32
_FEW = 2
_SAMPLES_PER_GROUP = 8


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Keys and groups of all samples, batch by batch.

    Attributes:
        keys: One key per sample, shape (B,), int64; one per batch whose tensors do not share
            their first dimension (graphs, say), which then counts as a single unit.
        groups: The group of each unit, shape as ``keys``, int64.
        count: G.
    """

    keys: tuple[Tensor, ...]
    groups: tuple[Tensor, ...]
    count: int

    @classmethod
    def anonymous(cls, batches: int) -> Samples:
        """Every batch a unit of its own, all in one group: for passes that need no more."""
        keys = tuple(torch.tensor([batch], dtype=torch.int64) for batch in range(batches))
        return cls(keys, tuple(torch.zeros_like(key) for key in keys), 1)

    def group_of(self, batch: int, rows: int) -> Tensor | int:
        """The group of each row of a BN input: shape (rows,), or one group for all of them.

        Rows are dealt to samples in equal runs; where that does not work out (rows are no
        multiple of the samples), the batch counts as one unit.
        """
        groups = self.groups[batch]
        if rows == groups.shape[0]:
            return groups
        if rows % groups.shape[0]:
            return batch % self.count
        return groups.repeat_interleave(rows // groups.shape[0])


def identify(batches: Sequence[Batch], device: torch.device | str = "cpu") -> Samples:
    """Key and group every sample of the calibration batches.

    Groups are equal runs of the samples in order of their keys, 8 to 32 of them.
    """
    digests = [_digests(batch) for batch in batches]
    seen: Counter[bytes] = Counter()
    keys: list[list[int]] = []
    for batch in digests:
        keys.append([])
        for digest in batch:
            keys[-1].append(_key(digest, seen[digest]))
            seen[digest] += 1
    total = sum(len(batch) for batch in keys)
    count = group_count(total)
    everyone = torch.tensor([key for batch in keys for key in batch], dtype=torch.int64)
    rank = torch.empty(total, dtype=torch.int64)
    rank[torch.argsort(everyone)] = torch.arange(total)
    group = rank * count // max(total, 1)
    sizes = [len(batch) for batch in keys]
    return Samples(
        tuple(part.to(device) for part in torch.split(everyone, sizes)),
        tuple(part.to(device) for part in torch.split(group, sizes)),
        count,
    )


def group_count(samples: int) -> int:
    """How many groups: 8 to 32, never more than samples."""
    return min(samples, max(MIN_GROUPS, min(MAX_GROUPS, samples // _SAMPLES_PER_GROUP)))


def _tensors(batch: Batch) -> list[Tensor]:
    flat = tree_leaves((batch.args, dict(batch.kwargs)))
    return [leaf for leaf in flat if isinstance(leaf, Tensor)]


def _digests(batch: Batch) -> list[bytes]:
    tensors = [tensor.detach().cpu() for tensor in _tensors(batch)]
    if any(tensor.dim() == 0 or tensor.shape[0] != batch.size for tensor in tensors):
        return [_digest(tensors)]
    return [_digest([tensor[row] for tensor in tensors]) for row in range(batch.size)]


def _digest(tensors: Sequence[Tensor]) -> bytes:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        flat = tensor.contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.digest()


def _key(digest: bytes, occurrence: int) -> int:
    """Copies of the same sample get keys of their own, side by side in the order of keys."""
    return (int.from_bytes(digest, "big", signed=True) & ~0xFFFFF) + min(occurrence, 0xFFFFF)


def few_of(batch: Batch) -> Batch:
    """The first samples of a batch, when every tensor has one row per sample."""
    few = min(batch.size, _FEW)
    leaves = tree_leaves((batch.args, dict(batch.kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if any(tensor.dim() == 0 or tensor.shape[0] != batch.size for tensor in tensors):
        return batch
    args, kwargs = tree_map(
        lambda leaf: leaf[:few] if isinstance(leaf, Tensor) else leaf,
        (batch.args, dict(batch.kwargs)),
    )
    return Batch(args, kwargs, None, few)
