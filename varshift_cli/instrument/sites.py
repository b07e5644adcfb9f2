"""Where BatchNorm (BN) and noise happen in a model, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class BatchNormKey(NamedTuple):
    """One call of one BN layer within a forward; ``call`` counts from 1."""

    name: str
    call: int


class NoiseKey(NamedTuple):
    """One call of one dropout within a forward; ``call`` counts from 1."""

    name: str
    call: int


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormSite:
    """A BN layer with running statistics.

    Attributes:
        name: Path of the module that owns the buffers (``""`` for a model that is one BN).
        kind: Class name of that module; ``batch_norm`` for a functional call.
        running_mean: The buffer itself, shape (C,).
        running_var: The buffer itself, shape (C,).
        updates: ``num_batches_tracked``, where the layer has one.
        buffers: Full names of mean and variance in the state dict; ``None`` where they are not
            in it.
        frozen: Its class says that it is never updated (FrozenBatchNorm2d).
    """

    name: str
    kind: str
    running_mean: Tensor
    running_var: Tensor
    updates: Tensor | None
    buffers: tuple[str, str] | None = None
    frozen: bool = False

    @property
    def num_features(self) -> int:
        """C."""
        return self.running_var.shape[0]

    @property
    def held_mean(self) -> Tensor:
        """What the buffer holds: shape (C,), float64, on the CPU as all figures are."""
        return self.running_mean.detach().to("cpu", torch.float64, copy=True)

    @property
    def held_var(self) -> Tensor:
        """Likewise."""
        return self.running_var.detach().to("cpu", torch.float64, copy=True)

    @property
    def never_updated(self) -> bool:
        """Whether it is as it was made: mean 0 and variance 1 in every channel, and no update."""
        if self.updates is not None and int(self.updates) != 0:
            return False
        return bool((self.running_mean == 0.0).all()) and bool((self.running_var == 1.0).all())


def display_names(keys: Iterable[Any]) -> dict[Any, str]:
    """Names as reported: ``bn``, or ``bn#1`` and ``bn#2`` for a site called more than once."""
    listed = list(keys)
    repeated = {key.name for key in listed if key.call > 1}
    return {key: f"{key.name}#{key.call}" if key.name in repeated else key.name for key in listed}
