"""What the catalogue holds of each cause."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from enum import StrEnum

from varshift_cli.records import Remedy

MODEL = "{model}"
"""Stands in a remedy's ``how`` for the user's checkpoint."""


class Family(StrEnum):
    """What kind of thing is wrong; the catalogue is listed in this order."""

    DROPOUT = "dropout"
    INHERITED = "inherited"
    NOISE = "noise"
    BUFFERS = "buffers"
    BATCHES = "batches"
    STRUCTURE = "structure"
    DATA = "data"

    @property
    def order(self) -> int:
        """Its place in the catalogue."""
        return list(Family).index(self)


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause of a variance shift."""

    code: str
    """``VS`` and three digits; never given to another cause."""
    title: str
    family: Family
    short: str
    """The cause in everyday words, for whoever has read no paper on it."""
    signature: str
    """What the measurement shows when this is the cause; paragraphs end in a newline."""
    why: str
    """How it comes about, and what it does."""
    remedies: tuple[Remedy, ...]
    """Best first; ``{model}`` stands for the checkpoint."""
    reference: str

    def remedies_for(self, model: str | None) -> tuple[Remedy, ...]:
        """The remedies with the checkpoint's path filled in, quoted for a shell."""
        path = "MODEL" if model is None else shlex.quote(model)
        return tuple(replace(each, how=each.how.replace(MODEL, path)) for each in self.remedies)
