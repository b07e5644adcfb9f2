"""Compare a report with an earlier one: only what got worse beyond both intervals counts.

Two intervals at 95 % that do not touch differ at about 0.6 % (twice the 1.96/sqrt(2) criterion),
and a layer below *fine* is no reason to stop anyone, however sure it is that it moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from varshift_cli.records import (
    LEVEL_BOUNDS,
    BaselineRecord,
    CalibrationRecord,
    LayerRecord,
    Level,
    Report,
)

_FINE = LEVEL_BOUNDS[Level.FINE]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A report beside its baseline."""

    record: BaselineRecord
    before: Mapping[tuple[str, int], LayerRecord]
    """The layers that both have, as the baseline measured them, by name and call."""
    notes: tuple[str, ...]
    """How the two differ beside their shifts."""


def compare(report: Report, baseline: Report, source: str | None) -> Comparison:
    """Match layers by name and call, and find those that got worse.

    Args:
        report: What was measured now.
        baseline: What was measured then.
        source: How the baseline is named to users.
    """
    earlier = {(each.name, each.call): each for each in baseline.layers}
    now = {(each.name, each.call): each for each in report.layers}
    before = {
        key: earlier[key]
        for key, layer in now.items()
        if key in earlier and _is_same(layer, earlier[key])
    }
    measured = [key for key, each in now.items() if each.shift is not None]
    record = BaselineRecord(
        source,
        baseline.checkpoint.path,
        worse=_names(key for key, each in before.items() if got_worse(now[key], each)),
        new=_names(key for key in measured if key not in before),
        missing=_names(key for key in earlier if key not in now),
    )
    return Comparison(record, before, tuple(_notes(record, report, baseline)))


def got_worse(now: LayerRecord, before: LayerRecord) -> bool | None:
    """Whether the interval lies above the earlier one; ``None`` where one is unknown."""
    if now.shift is None:
        return None
    if now.shift < _FINE:
        return False
    if now.shift_interval is None or before.shift_interval is None:
        return None
    return now.shift_interval.low > before.shift_interval.high


def _is_same(now: LayerRecord, before: LayerRecord) -> bool:
    """Whether two records of one name tell of one layer, both measured."""
    return before.shift is not None and now.num_features == before.num_features


def _names(keys: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _call in keys))


def _notes(record: BaselineRecord, report: Report, baseline: Report) -> Iterator[str]:
    if record.new:
        yield f"not in the baseline, judged by the threshold alone: {listed(record.new)}"
    if record.missing:
        yield f"in the baseline alone: {listed(record.missing)}"
    then, now = _data(baseline.calibration), _data(report.calibration)
    if then != now:
        yield f"the baseline was measured on {then}, this on {now}"


def listed(names: Sequence[str]) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown


_LISTED = 5


def _data(calibration: CalibrationRecord) -> str:
    """What names the data: the first word of their description."""
    return "data in memory" if calibration.data is None else calibration.data.split("  ")[0]
