"""What a classifier's outputs tell without labels: how certain it is, and of how many classes.

A network is at its best under the statistics that it was trained with. One that was trained with
BatchNorm in eval mode (frozen, in fine-tuning) loses some of its classes when it is recalibrated,
or becomes much less certain; one whose weights were changed afterwards (pruned, averaged) becomes
much more certain, and loses none. Measured by ``tests/benchmarks/repair_table.py``, on 49 kinds of
nets; figures below are from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LESS_CERTAIN = 1.3
"""Ratio of entropies from which recalibrated outputs are much less certain than today's: a frozen
net without dropout 1.5, augmented nets up to 1.2."""
FEWER_CLASSES = 0.02
"""Fall of the classes' spread, in nats, below what it is today or corrected, from which
recalibration loses classes: frozen nets 0.03 to 0.17, all others up to 0.01."""
MORE_CERTAIN = 0.75
"""Ratio of entropies below which recalibrated outputs are much more certain than corrected ones:
pruned and averaged nets 0.2 to 0.67, augmented ones 0.9 to 1.2."""
_NOTHING = 0.05
"""Nats of certainty that tell nothing where both are nearly 0."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one set of outputs, in nats.

    Attributes:
        entropy: Mean over samples of the entropy of the predicted probabilities.
        spread: Entropy of their mean over samples: ln(classes) where all are predicted alike.
    """

    entropy: float
    spread: float

    def has_fewer_classes(self, other: Answers) -> bool:
        """Whether some classes are predicted much less than in the other outputs."""
        return self.spread < other.spread - FEWER_CLASSES


@dataclass(frozen=True, slots=True)
class Certainty:
    """Of the network as it is and after each repair; ``None`` where it is not known."""

    as_is: Answers | None
    recalibrated: Answers | None
    corrected: Answers | None = None

    @property
    def loses_classes(self) -> bool:
        """Whether recalibration makes the network predict some classes much less."""
        if self.as_is is None or self.recalibrated is None:
            return False
        return self.recalibrated.has_fewer_classes(self.as_is)

    @property
    def is_lost(self) -> bool:
        """Whether recalibration takes classes or certainty away."""
        if self.as_is is None or self.recalibrated is None:
            return False
        certain = LESS_CERTAIN * self.as_is.entropy + _NOTHING
        return self.loses_classes or self.recalibrated.entropy > certain

    @property
    def is_gained(self) -> bool:
        """Whether recalibration makes it much more certain than correction does, of all classes."""
        if self.corrected is None or self.recalibrated is None or self.is_lost:
            return False
        if self.recalibrated.has_fewer_classes(self.corrected):
            return False
        return self.recalibrated.entropy < MORE_CERTAIN * self.corrected.entropy


def answers_of(outputs: Tensor | None) -> Answers | None:
    """Entropy and spread of the predicted classes.

    Args:
        outputs: Scores or probabilities, shape (samples, classes); ``None`` for anything else.
    """
    if outputs is None or outputs.dim() != 2 or outputs.shape[1] < 2:
        return None
    scores = outputs.double()
    if not bool(scores.isfinite().all()):
        return None
    if bool((scores >= 0.0).all()) and bool(((scores.sum(dim=1) - 1.0).abs() < 1e-4).all()):
        probabilities = scores
    else:
        probabilities = torch.softmax(scores, dim=1)
    return Answers(
        float(_entropy(probabilities).mean()), float(_entropy(probabilities.mean(dim=0)))
    )


def _entropy(probabilities: Tensor) -> Tensor:
    logs = torch.log(probabilities.clamp(min=_TINY))
    return -(probabilities * logs).sum(dim=-1)
