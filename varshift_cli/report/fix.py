"""The screen of ``varshift fix``: what was done, before and after, and what was written."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from varshift_cli.records import LEVEL_BOUNDS, FixRecord, Interval, Level, RepairRecord, Score
from varshift_cli.report.screen import GAP, PLAIN, Style, block, pairs, spaced, to_text
from varshift_cli.report.text import count, layer_name, percent, ratio, visible

GUTTER = 13
BOUND = 1.25
"""``above_before`` and ``above_after`` count layers beyond this shift."""


def render_fix(record: FixRecord, style: Style = PLAIN, *, typed: Sequence[str] = ()) -> str:
    """A fix as a screen of text.

    Args:
        record: What was done.
        style: The surface to draw on.
        typed: The options that named the model and the data, repeated in the command to run next.
    """
    blocks = (
        _done(record, style),
        _before_and_after(record, style),
        [*_written(record, style), *_left_alone(record, style), *_next(record, style, typed)],
    )
    return to_text(spaced(blocks), style)


def _done(record: FixRecord, style: Style) -> list[Text]:
    repair = record.repair
    how = f"{count(len(repair.layers), 'BatchNorm layer')}, {_passes(repair)}, with dropout off"
    return block(visible(repair.method), Text(how), style, gutter=GUTTER)


def _passes(repair: RepairRecord) -> str:
    samples = count(repair.samples, "sample")
    if repair.procedure != "lockstep":
        return f"{visible(repair.procedure)} over {samples}"
    if repair.windows > 1:
        return f"one pass over {samples} in {repair.windows} windows"
    return f"exactly, in one pass over {samples}"


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    before: str
    after: str
    remark: str
    colour: str = ""
    """Of the figure after the repair: green where it is better beyond doubt, red where worse."""


def _before_and_after(record: FixRecord, style: Style) -> list[Text]:
    """The figures in two columns, each with a remark."""
    rows = [*_shifts(record), *(_score(each) for each in record.scores)]
    name = max(Text(row.name).cell_len for row in rows)
    before = max(len(row.before) for row in (_HEAD, *rows))
    after = max(len(row.after) for row in (_HEAD, *rows))
    lines = []
    for row in (_HEAD, *rows):
        shown = Text(row.name + " " * (name - Text(row.name).cell_len))
        shown.append(" " * 2 * GAP + row.before.rjust(before), "dim" * (row is _HEAD))
        shown.append(" " * 2 * GAP + row.after.rjust(after), row.colour)
        gutter = shown.cell_len + GAP
        body = block("", Text(row.remark, "dim"), style, gutter=gutter)
        lines += [Text.assemble(shown, body[0][gutter - GAP :]), *body[1:]]
    return lines


_HEAD = _Row("", "as it is", "repaired", "", "dim")


def _shifts(record: FixRecord) -> list[_Row]:
    fine = record.worst_after < LEVEL_BOUNDS[Level.FINE]
    residual = f"residual {_residual(record.repair.residual)}, by a separate eval() pass"
    return [
        _Row(
            "worst layer shift",
            ratio(record.worst_before),
            f"{record.worst_after:.3f}",
            residual,
            _BETTER if fine else _WORSE,
        ),
        _Row(
            f"layers above {BOUND:g}",
            f"{record.above_before} of {record.measured}",
            str(record.above_after),
            "",
            _WORSE if record.above_after else _BETTER,
        ),
    ]


_BETTER, _WORSE = "bold green", "bold red"


def _score(score: Score) -> _Row:
    name = f"{visible(score.name)}, {visible(score.data)}"
    gain = score.after - score.before
    if score.name == "accuracy":
        remark = f"{100 * gain:+.1f} points{_spread(score.difference, 100, '.1f')}"
        before, after = percent(score.before), percent(score.after)
    else:
        remark = f"{gain:+.3f}{_spread(score.difference, 1, '.3f')}"
        before, after = f"{score.before:.3f}", f"{score.after:.3f}"
    return _Row(name, before, after, remark, _judgement(score))


def _judgement(score: Score) -> str:
    """A colour only where the whole interval lies on one side of no change."""
    if score.difference is None:
        return ""
    low, high = score.difference.low, score.difference.high
    if score.name == "loss":
        low, high = -high, -low
    return _BETTER if low > 0 else _WORSE if high < 0 else ""


def _spread(difference: Interval | None, unit: float, digits: str) -> str:
    if difference is None:
        return ""
    low, high = (format(unit * each, "+" + digits) for each in (difference.low, difference.high))
    return f" (95 %: {low} to {high})"


def _written(record: FixRecord, style: Style) -> list[Text]:
    if record.output is None:
        layers = count(len(record.repair.layers), "BatchNorm layer")
        body = f"nothing written; the statistics of {layers} would change"
        return block("dry run", Text(body), style, gutter=GUTTER)
    buffers = count(record.changed_buffers, "BatchNorm buffer")
    differ = "differs" if record.changed_buffers == 1 else "differ"
    files = [
        ("written", visible(record.output), f"{buffers} {differ}; every other byte is the same")
    ]
    if record.sidecar is not None:
        files.append(
            ("kept", visible(record.sidecar), "the old buffers, and where the new ones came from")
        )
    return pairs(files, style, gutter=GUTTER)


def _left_alone(record: FixRecord, style: Style) -> list[Text]:
    lines: list[Text] = []
    label = "left alone"
    for skipped in record.repair.skipped:
        body = Text(f"{layer_name(skipped.name)}: {visible(skipped.reason)}", "dim")
        lines += block(label, body, style, gutter=GUTTER)
        label = ""
    label = "note"
    for note in record.notes:
        lines += block(label, Text(visible(note)), style, gutter=GUTTER)
        label = ""
    return lines


def _next(record: FixRecord, style: Style, typed: Sequence[str]) -> list[Text]:
    if record.output is None:
        return []
    command = f"varshift scan {visible(shlex.join([record.output, *typed]))} --max-shift {BOUND:g}"
    return pairs([("next", command, "in CI, so that it stays so")], style, gutter=GUTTER)


_ROUNDING = 1e-6
"""Below it a residual is float32 rounding, which differs from machine to machine."""


def _residual(value: float) -> str:
    return f"{value:.0e}" if value >= _ROUNDING else f"< {_ROUNDING:.0e}"
