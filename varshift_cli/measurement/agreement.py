"""Whether a repaired network still answers as it did in training: the judge where targets lack.

Weights were fitted to what the network returned with dropout on. Each output in ``train()`` is
that answer and noise of mean 0, so that over many samples the squared distance to it tells which
of two sets of outputs is nearer to the answer itself: the noise adds the same to both. A network
whose last layers sit right behind noisy BatchNorm has fitted their scale to that noise; repaired,
its outputs overshoot. Measured by ``tests/benchmarks/repair_table.py`` and on regressions: where a
repair helps, the ratio of distances is at most 1.24; MLPs with Linear, Dropout, BatchNorm in turn
read 1.3 to 4, and lose by any repair (squared errors of regressions grow two- to fourfold).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FARTHER = 1.3
"""Ratio of squared distances from which repaired outputs are farther from training's."""
_Z = 1.96
_NOTHING = 1e-6
_AT_ONCE = 1_000_000  # values taken to float64 at a time


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean squared distance to the outputs in ``train()``, in units of their variance.

    Attributes:
        as_is: Of today's outputs in ``eval()``.
        after: Of those after a repair.
        low: Lower end of the 95 % interval of after minus as_is, from paired samples.
    """

    as_is: float
    after: float
    low: float

    @property
    def is_lost(self) -> bool:
        """Whether the repair takes the outputs farther from training's, beyond noise.

        Not where today's are a unit away or more: then there is nothing in common to be lost.
        """
        return self.low > 0.0 and FARTHER * self.as_is + _NOTHING < self.after and self.as_is < 1.0

    def __str__(self) -> str:
        """``0.19 of their variance as it is, 0.79 repaired``."""
        return f"{self.as_is:.2g} of their variance as it is, {self.after:.2g} repaired"


def agreement(train: Tensor | None, as_is: Tensor | None, after: Tensor | None) -> Agreement | None:
    """How far outputs are from those with dropout on, before and after a repair.

    Args:
        train: Outputs with dropout on, shape (samples, ...).
        as_is: Outputs in eval mode, the same samples.
        after: Likewise, after the repair.

    Returns:
        ``None`` where one is missing, shapes differ, or values are not finite or all the same.
    """
    if train is None or as_is is None or after is None or len(train) < 2:
        return None
    if not train.shape == as_is.shape == after.shape:
        return None
    centre = train.mean(dim=0, dtype=torch.float64)
    rows = max(1, _AT_ONCE * len(train) // max(train.numel(), 1))
    spread, was, now = torch.cat(
        [
            _squares(train[at : at + rows], as_is[at : at + rows], after[at : at + rows], centre)
            for at in range(0, len(train), rows)
        ],
        dim=1,
    )
    variance = float(spread.mean())
    if not (0.0 < variance < math.inf and bool(was.isfinite().all() and now.isfinite().all())):
        return None
    before, behind = was / variance, now / variance
    change = behind - before
    half = _Z * float(change.std()) / math.sqrt(len(change))
    return Agreement(float(before.mean()), float(behind.mean()), float(change.mean()) - half)


def _squares(train: Tensor, as_is: Tensor, after: Tensor, centre: Tensor) -> Tensor:
    """Of each sample: how far train() is from its mean, and both others from it; shape (3, N)."""
    reference = train.double()
    differences = (reference - centre, as_is.double() - reference, after.double() - reference)
    return torch.stack([each.square().reshape(len(each), -1).mean(dim=1) for each in differences])
