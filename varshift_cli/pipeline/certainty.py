"""How certain a classifier is of its answers: what can be said of them without labels.

A network is certain under the statistics that it was trained with. One that was trained with
BatchNorm in eval mode (frozen, in fine-tuning) becomes much less certain when it is recalibrated;
one whose weights were changed afterwards (pruned, averaged) becomes much more so. Measured by
``tests/benchmarks/repair_table.py`` on 42 kinds of nets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LESS = 1.3
"""Ratio of entropies from which recalibrated outputs are much less certain than today's: frozen
nets 1.5 to 22, augmented ones up to 1.2, all others below 1.1."""
MORE = 0.75
"""Ratio of entropies below which they are much more certain than corrected ones: pruned and
averaged nets 0.2 to 0.67, augmented ones 0.9 to 1.2."""
_NOTHING = 0.05
"""Nats that tell nothing where both are nearly 0."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Certainty:
    """Mean entropy of the predictions, in nats; ``None`` where it is not known."""

    as_is: float | None
    recalibrated: float | None
    corrected: float | None = None

    @property
    def is_lost(self) -> bool:
        """Whether recalibration makes the network much less certain than it is."""
        if self.as_is is None or self.recalibrated is None:
            return False
        return self.recalibrated > LESS * self.as_is + _NOTHING

    @property
    def is_gained(self) -> bool:
        """Whether recalibration makes it much more certain than correction does."""
        if self.corrected is None or self.recalibrated is None:
            return False
        return self.recalibrated < MORE * self.corrected


def entropy_of(outputs: Tensor | None) -> float | None:
    """Mean entropy of the predicted classes, in nats.

    Args:
        outputs: Scores or probabilities, shape (samples, classes); ``None`` for anything else.
    """
    if outputs is None or outputs.dim() != 2 or outputs.shape[1] < 2:
        return None
    scores = outputs.double()
    if not bool(scores.isfinite().all()):
        return None
    sums = scores.sum(dim=1)
    if bool((scores >= 0.0).all()) and bool(((sums - 1.0).abs() < 1e-4).all()):
        logs = torch.log(scores.clamp(min=_TINY))
    else:
        logs = torch.log_softmax(scores, dim=1)
    return float(-(logs.exp() * logs).sum(dim=1).mean())
