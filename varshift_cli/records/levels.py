"""The closed choices: levels, causes, states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Level(StrEnum):
    """How bad a layer's ``shift`` is; the bounds are :data:`LEVEL_BOUNDS`."""

    FINE = "fine"
    MILD = "mild"
    STRONG = "strong"
    SEVERE = "severe"

    @classmethod
    def of(cls, shift: float) -> Level:
        """The level of a shift ratio >= 1."""
        for level, bound in LEVEL_BOUNDS.items():
            if shift < bound:
                return level
        return cls.SEVERE


LEVEL_BOUNDS: Mapping[Level, float] = {Level.FINE: 1.05, Level.MILD: 1.25, Level.STRONG: 2.0}
"""Exclusive upper bounds of the levels below ``severe``."""


class Describe(StrEnum):
    """What the running buffers describe: the net with dropout on, off, or undecided."""

    TRAIN = "train"
    CLEAN = "clean"
    UNKNOWN = "unknown"


class Case(StrEnum):
    """How a dropout reaches a BN: straight (``a``) or through weights (``b``), Li et al. sec. 3."""

    STRAIGHT = "a"
    THROUGH_WEIGHTS = "b"


class FindingLevel(StrEnum):
    """How loud a finding is."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Status(StrEnum):
    """The gate's answer."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_GATED = "not_gated"
