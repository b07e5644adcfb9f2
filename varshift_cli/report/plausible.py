"""What a report's figures can be: a report edited by hand into nonsense is refused.

:func:`varshift_cli.report.from_json` checks types; here are the ranges, which the published schema
carries too, and what has to agree within one layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType

from varshift_cli.errors import ReportError
from varshift_cli.records import (
    CalibrationRecord,
    DropoutRecord,
    Effect,
    Factors,
    LayerRecord,
    Level,
    Report,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the largest value of a figure, both included."""

    least: float
    most: float | None = None

    def __str__(self) -> str:
        return (
            f"at least {self.least:g}" if self.most is None else f"{self.least:g} to {self.most:g}"
        )


_RATIO = Range(0)
_SHIFT = Range(1)
_COUNT = Range(0)
_SHARE = Range(0, 1)

RANGES: Mapping[type, Mapping[str, Range]] = {
    CalibrationRecord: {
        "samples": _COUNT,
        "batch_size": Range(1),
        "batches": _COUNT,
        "groups": _COUNT,
        "windows": Range(1),
        "seed": _COUNT,
    },
    LayerRecord: {
        "num_features": Range(1),
        "eps": _COUNT,
        "call": Range(1),
        "shift": _SHIFT,
        "signed": _RATIO,
        "paper_ratio": _RATIO,
        "median_ratio": _RATIO,
        "worst_channel": _COUNT,
        "worst_ratio": _RATIO,
        "mean_shift": _RATIO,
        "dead_channels": _COUNT,
    },
    Factors: dict.fromkeys(("stale", "batch", "dropout", "inherited"), _RATIO),
    DropoutRecord: {"p": _COUNT},
    Effect: {"changed_predictions": _SHARE, "relative_l2": _RATIO},
    Verdict: {"threshold": _SHIFT, "worst_shift": _SHIFT},
}
"""Figures that cannot be just any number. A non-negative one may be 0: a dead channel's is."""

_SLACK = 1e-9  # for the rounding that a shift and its interval have seen
_SLACKENED = 1 + _SLACK


def refuse_nonsense(report: Report) -> None:
    """Refuse a report whose figures cannot be.

    Raises:
        ReportError: A figure is out of its range, or contradicts another; names the place.
    """
    for problem in _out_of_range(report, ""):
        raise ReportError(problem, hint=_HINT)
    for index, layer in enumerate(report.layers):
        for problem in _contradictions(layer):
            raise ReportError(f"layers.{index}.{problem}", hint=_HINT)


_HINT = "varshift writes no such report: it was edited, or damaged; scan again"


def _out_of_range(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _out_of_range(each, f"{path}{key}.")
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            if not isinstance(each, _LEAVES):
                yield from _out_of_range(each, f"{path}{index}.")
    elif is_dataclass(value) and not isinstance(value, type):
        ranges = RANGES.get(type(value), {})
        for field in fields(value):
            each = getattr(value, field.name)
            allowed = ranges.get(field.name)
            if allowed is not None and each is not None and not _is_within(each, allowed):
                yield f"{path}{field.name} must be {allowed}, not {each:g}"
            if not isinstance(each, _LEAVES):
                yield from _out_of_range(each, f"{path}{field.name}.")


_LEAVES = (str, int, float, NoneType)
"""Most of what a report holds; to look into each for a figure took longer than all else here."""


def _is_within(value: float, allowed: Range) -> bool:
    return value >= allowed.least and (allowed.most is None or value <= allowed.most)


def _contradictions(layer: LayerRecord) -> Iterator[str]:
    shift, spread = layer.shift, layer.shift_interval
    if shift is None:  # not measured, or not finite
        return
    level = Level.of(shift)
    if layer.level is not level:
        found = "null" if layer.level is None else layer.level.value
        yield f"level is {found}, but a shift of {shift:g} is {level.value}"
    if spread is None:
        return
    shown = f"shift_interval {spread.low:g} to {spread.high:g}"
    if spread.low < 1 - _SLACK:
        yield f"{shown} begins below 1, where no shift is"
    if not spread.low / _SLACKENED <= shift <= spread.high * _SLACKENED:
        yield f"{shown} does not hold the shift {shift:g}"
