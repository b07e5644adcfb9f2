"""The screen of ``varshift fix``: what was done, before and after, and what was written."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from varshift_cli.records import LEVEL_BOUNDS, FixRecord, Interval, Level, RepairRecord, Score
from varshift_cli.report.paragraphs import BOUND, gate_command, note_lines
from varshift_cli.report.screen import GAP, PLAIN, Style, block, blocks, pairs, spaced, to_text
from varshift_cli.report.text import count, layer_name, percent, ratio, visible

GUTTER = 13


def render_fix(record: FixRecord, style: Style = PLAIN, *, typed: Sequence[str] = ()) -> str:
    """A fix as a screen of text.

    Args:
        record: What was done.
        style: The surface to draw on.
        typed: The options that named the model and the data, repeated in the command to run next.
    """
    repair = record.repair
    notes = note_lines("note", record.notes, style, gutter=GUTTER, colour="")
    if repair is None:
        lines = _put_back(record, style) if record.method == "revert" else _unchanged(record, style)
        return to_text(spaced((lines, notes)), style)
    blocks = (
        [*_chosen(record, style), *_done(repair, style), *_held_out(record, style)],
        _before_and_after(record, repair, style),
        [
            *_written(record, repair, style),
            *_left_alone(repair, style),
            *notes,
            *_next(record, style, typed),
        ],
    )
    return to_text(spaced(blocks), style)


def _unchanged(record: FixRecord, style: Style) -> list[Text]:
    body = f"nothing to repair: {visible(record.reason or '')}"
    return [
        *block("unchanged", Text(body), style, gutter=GUTTER),
        *block("", Text("no file was written", "dim"), style, gutter=GUTTER),
    ]


def _put_back(record: FixRecord, style: Style) -> list[Text]:
    lines = block("reverted", Text(f"it was {visible(record.reason or '')}"), style, gutter=GUTTER)
    if record.output is None:
        body = "nothing written; the old buffers fit this file"
        return lines + block("dry run", Text(body), style, gutter=GUTTER)
    buffers = count(record.changed_buffers, "BatchNorm buffer")
    proof = f"{buffers} put back; the file is the old one to the bit (sha256)"
    return lines + pairs([("written", visible(record.output), proof)], style, gutter=GUTTER)


def _chosen(record: FixRecord, style: Style) -> list[Text]:
    """What was chosen and why, where there was a choice."""
    if record.method != "auto" or record.chosen is None:
        return []
    body = Text(f"{visible(record.chosen)}: {visible(record.reason or '')}")
    return block("chosen", body, style, gutter=GUTTER)


def _done(repair: RepairRecord, style: Style) -> list[Text]:
    layers = count(len(repair.layers), "BatchNorm layer")
    how = f"{layers}, {_passes(repair)}, with dropout off"
    if repair.method == "correct":
        on = count(repair.samples, "sample")
        windows = "" if repair.windows == 1 else f" in {repair.windows} windows"
        how = f"{layers}, by the difference of {on} with dropout on and off{windows}"
    return block(visible(repair.method), Text(how), style, gutter=GUTTER)


def _held_out(record: FixRecord, style: Style) -> list[Text]:
    """Which samples judged: ``--samples`` may have drawn a part of what there is."""
    if record.holdout is None:
        return []
    body = visible(record.holdout.replace("  ", ": ", 1))
    return block("judged on", Text(body), style, gutter=GUTTER)


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


def _before_and_after(record: FixRecord, repair: RepairRecord, style: Style) -> list[Text]:
    """The figures in two columns, each with a remark."""
    rows = [*_shifts(record, repair), *(_score(each) for each in record.scores)]
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


def _shifts(record: FixRecord, repair: RepairRecord) -> list[_Row]:
    before, after = record.worst_before, record.worst_after
    fine = after is not None and after < LEVEL_BOUNDS[Level.FINE]
    residual = f"residual {_residual(repair.residual)}, by a separate eval() pass"
    if repair.method == "correct":
        hidden = before is not None and after is not None and after > before
        left = "what is left is not dropout's doing" + "; dropout hid part of it" * hidden
        residual = "by a separate eval() pass" if fine else left
    return [
        _Row(
            "worst layer shift",
            "unknown" if before is None else ratio(before),
            "unknown" if after is None else f"{after:.3f}",
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
    if score.in_sample:
        remark += ", in-sample"
    return _Row(name, before, after, remark, _judgement(score))


def _judgement(score: Score) -> str:
    """A colour only where the whole interval lies on one side of no change, on unseen samples."""
    if score.difference is None or score.in_sample:
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


def _written(record: FixRecord, repair: RepairRecord, style: Style) -> list[Text]:
    if record.output is None:
        layers = count(len(repair.layers), "BatchNorm layer")
        body = f"nothing written; the statistics of {layers} would change"
        return block("dry run", Text(body), style, gutter=GUTTER)
    buffers = count(record.changed_buffers, "BatchNorm buffer")
    differ = "differs" if record.changed_buffers == 1 else "differ"
    files = [
        ("written", visible(record.output), f"{buffers} {differ}; every other byte is the same")
    ]
    if record.sidecar is not None:
        files.append(
            ("kept", visible(record.sidecar), f"the old buffers, for {visible(_undo(record))}")
        )
    return pairs(files, style, gutter=GUTTER)


def _undo(record: FixRecord) -> str:
    return f"varshift fix {shlex.quote(record.output or '')} --revert"


def _left_alone(repair: RepairRecord, style: Style) -> list[Text]:
    """Layers that were not repaired, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for skipped in repair.skipped:
        by_reason.setdefault(skipped.reason, []).append(layer_name(skipped.name))
    bodies = []
    for reason, names in by_reason.items():
        shown = ", ".join(names[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        bodies.append(Text(f"{shown}{more}: {visible(reason)}", "dim"))
    return blocks("left alone", bodies, style, gutter=GUTTER)


_NAMED = 3


def _next(record: FixRecord, style: Style, typed: Sequence[str]) -> list[Text]:
    if record.output is None:
        return []
    scan = f"varshift scan {visible(shlex.join([record.output, *typed]))}"
    passes = record.worst_after is None or record.worst_after <= BOUND
    more = " --samples auto" if record.chosen == "correct" else ""
    row = gate_command(scan, passes=passes, more=more)
    return pairs([("next", *row)], style, gutter=GUTTER)


_ROUNDING = 1e-6
"""Below it a residual is float32 rounding, which differs from machine to machine."""


def _residual(value: float) -> str:
    return f"{value:.0e}" if value >= _ROUNDING else f"< {_ROUNDING:.0e}"
