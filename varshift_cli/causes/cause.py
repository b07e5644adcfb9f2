"""What the catalogue holds of each cause."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from enum import StrEnum

from varshift_cli.records import Remedy

MODEL = "{model}"
"""Stands in a remedy's ``how`` for the user's checkpoint."""

_LETTER = re.compile(r"\b[TCER]/[TCER]\b|(?<!\w)[TCR](?!\w)")
_LETTERS = (
    "Variances of what enters the layer, per channel: R stored (running_var); T with dropout on, "
    "as in training; C with dropout off; E in eval(). For T and C every BatchNorm normalises by "
    "these data, for E by what is stored. T/R is the stale factor, C/T the dropout factor, E/C the "
    "inherited factor; multiplied they give E/R: how far off it is."
)


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
    letters: tuple[tuple[str, str], ...] = ()
    """What ``signature`` and ``remedies`` call by a letter or short name, with its meaning; ``R``,
    ``T``, ``C`` and ``E`` are the same for all causes, and not among them."""

    @property
    def legend(self) -> tuple[str, ...]:
        """What the letters of the signature stand for, a line for each; empty where it has none."""
        common = (_LETTERS,) if _LETTER.search(self.signature) else ()
        return (*common, *(f"{letter}: {meaning}" for letter, meaning in self.letters))

    def remedies_for(self, model: str | None) -> tuple[Remedy, ...]:
        """The remedies with the checkpoint's path filled in, quoted for a shell."""
        path = "MODEL" if model is None else shlex.quote(model)
        return tuple(replace(each, how=each.how.replace(MODEL, path)) for each in self.remedies)
