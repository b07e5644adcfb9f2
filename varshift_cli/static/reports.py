"""``varshift diff`` of two reports: which layers got worse, beyond both intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from varshift_cli import __version__
from varshift_cli.records import Change, LayerRecord, Report, ReportDiff, ShiftChange

_ORDER = {Change.WORSE: 0, Change.BETTER: 1, Change.UNKNOWN: 2, Change.SAME: 3}


def diff_reports(before: Report, after: Report, names: tuple[str, str]) -> ReportDiff:
    """Compare two reports layer by layer.

    Args:
        before: A.
        after: B.
        names: What to call the two.
    """
    ours = {layer.name: layer for layer in before.layers}
    theirs = {layer.name: layer for layer in after.layers}
    changes = [_change(ours[name], theirs[name]) for name in ours if name in theirs]
    changes.sort(key=lambda each: (_ORDER[each.change], -_size(each)))
    return ReportDiff(
        varshift_version=__version__,
        before=names[0],
        after=names[1],
        layers=tuple(changes),
        only_before=tuple(name for name in ours if name not in theirs),
        only_after=tuple(name for name in theirs if name not in ours),
        notes=tuple(_notes(before, after)),
    )


def _change(before: LayerRecord, after: LayerRecord) -> ShiftChange:
    return ShiftChange(
        name=before.name,
        before=before.shift,
        before_interval=before.shift_interval,
        after=after.shift,
        after_interval=after.shift_interval,
        change=_judge(before, after),
        level_before=before.level,
        level_after=after.level,
        cause_before=before.cause,
        cause_after=after.cause,
    )


def _judge(before: LayerRecord, after: LayerRecord) -> Change:
    was, now = before.shift_interval, after.shift_interval
    if was is None or now is None:
        return Change.UNKNOWN
    if now.low > was.high:
        return Change.WORSE
    return Change.BETTER if now.high < was.low else Change.SAME


def _size(each: ShiftChange) -> float:
    """|ln| of the change."""
    if not each.before or not each.after:
        return 0.0
    return abs(math.log(each.after / each.before))


def _notes(before: Report, after: Report) -> Iterator[str]:
    was, now = before.calibration, after.calibration
    if was.data != now.data:
        yield f"measured on other data: {was.data or 'in memory'}, then {now.data or 'in memory'}"
    if was.seed != now.seed:
        yield f"other samples and masks: seed {was.seed}, then {now.seed}"
    if was.samples != now.samples:
        yield f"{was.samples:,} samples, then {now.samples:,}"
