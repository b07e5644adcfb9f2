"""What a team asks of a report: thresholds, by layer too, and what is set aside with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class LayerRule:
    """A threshold of its own for the layers that a glob names."""

    pattern: str
    """A glob over layer names: ``head.*``."""
    max_shift: float


@dataclass(frozen=True, slots=True)
class Suppression:
    """What the gate shall pass over, and why.

    With a pattern and a code, only layers that both name are meant.
    """

    reason: str
    pattern: str | None = None
    """A glob over layer names."""
    code: str | None = None
    """A cause, ``VS101``: the layers that its finding names."""
    expires: date | None = None
    """The last day it holds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds and exceptions of a gate."""

    max_shift: float | None = None
    """The largest ``shift`` allowed, a ratio >= 1."""
    layers: tuple[LayerRule, ...] = ()
    """Thresholds for some layers; the first pattern that fits a name counts."""
    max_changed_predictions: float | None = None
    """The largest share of predictions that recalibration may change, 0 to 1."""
    min_accuracy: float | None = None
    """The least accuracy in ``eval()`` as it is, 0 to 1."""
    min_r2: float | None = None
    """The least R2 of a regression in ``eval()`` as it is, at most 1."""
    min_metric: float | None = None
    """The least figure of ``--metric`` in ``eval()`` as it is."""
    suppressions: tuple[Suppression, ...] = ()

    @property
    def gates(self) -> bool:
        """Whether anything can fail."""
        answers = (
            self.max_changed_predictions,
            self.min_accuracy,
            self.min_r2,
            self.min_metric,
        )
        others = any(each is not None for each in answers)
        return self.max_shift is not None or bool(self.layers) or others

    def threshold_of(self, name: str) -> float | None:
        """The threshold that holds for a layer."""
        for rule in self.layers:
            if fnmatchcase(name, rule.pattern):
                return rule.max_shift
        return self.max_shift
