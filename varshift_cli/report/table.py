"""The screen of ``varshift scan``: what was measured, the layers that are off, and why."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import CalibrationRecord, CheckpointRecord, LayerRecord, Report
from varshift_cli.report import summary
from varshift_cli.report.layers import chosen, layer_table, rest_line
from varshift_cli.report.paragraphs import note_lines, skipped_lines
from varshift_cli.report.remedies import remedy_lines
from varshift_cli.report.screen import PLAIN, Style, block, spaced, to_text, wrap
from varshift_cli.report.text import count, visible
from varshift_cli.report.wording import is_without_train

_HEADER_GAP = 3
_APART = "  "  # between what names the data and what is said of them


def render_table(
    report: Report,
    style: Style = PLAIN,
    *,
    all_layers: bool = False,
    order: str = "shift",
    typed: Sequence[str] = (),
) -> str:
    """The report as a screen of text.

    Args:
        report: What was found.
        style: The surface to draw on.
        all_layers: Show every layer, not only the worst of those that are off.
        order: ``shift``, the worst first, or ``network``, in execution order.
        typed: The options that named the model and the data, repeated in the commands to run next.
    """
    shown = chosen(report, all_layers=all_layers, order=order)
    blocks = (
        _header(report, style),
        _table(report, shown, style),
        [
            *summary.why(report, style),
            *summary.cleared(report, style),
            *summary.effect(report, style),
            *remedy_lines(report, style),
            *skipped_lines("Skipped", report.skipped, style),
            *note_lines("Notes", report.notes, style),
        ],
        [*summary.verdict(report, style), *summary.next_steps(report, style, typed=typed)],
    )
    return to_text(spaced(blocks), style)


def _table(report: Report, shown: Sequence[LayerRecord], style: Style) -> list[Text]:
    lines = layer_table(report, shown, style)
    rest = rest_line(report, shown)
    if lines and rest:
        hint = "   --all shows them, --order network sorts"
        lines.append(Text.assemble("  ", rest, (hint, "dim")))
    return lines


def _header(report: Report, style: Style) -> list[Text]:
    """Two lines: the checkpoint with what it holds, and the data with how they were used."""
    model, data = report.checkpoint, report.calibration
    rows = [
        (path_or(model.path, "model in memory"), _contents(report), visible(model.arch or "")),
        (_source(data), _samples(data), _run(data)),
    ]
    return header_lines(rows, style)


def header_lines(rows: Sequence[Sequence[str]], style: Style) -> list[Text]:
    """Rows of a name and two facts: side by side where that fits, else the facts below."""
    widths = [max(Text(row[column]).cell_len for row in rows) for column in range(3)]
    if sum(widths) + 2 * _HEADER_GAP <= style.width:
        return [_aligned(row, widths) for row in rows]
    lines = []
    for name, *facts in rows:
        lines += wrap(Text(name, "bold"), style.width, fold=style.fold)
        body = Text(", ".join(each for each in facts if each))
        lines += block("", body, style, gutter=2)
    return lines


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Text:
    line = Text()
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        line.append(cell, "bold" if index == 0 else "dim" if index > 1 else "")
        line.append(" " * (width - Text(cell).cell_len + _HEADER_GAP))
    return line


def path_or(path: str | None, otherwise: str) -> str:
    """The path as shown; a model or data in memory have none."""
    return otherwise if path is None else visible(path)


def _contents(report: Report) -> str:
    layers = len({layer.name for layer in report.layers}) + len(report.skipped)
    parts = [count(layers, "BatchNorm layer")]
    parts += [count(len(report.dropouts), "dropout")] if report.dropouts else [_no_dropout(report)]
    return ", ".join([*container_words(report.checkpoint), *parts])


def _no_dropout(report: Report) -> str:
    return "dropout taken out" if is_without_train(report) else "no dropout"


_WITH_CODE = {
    "module": "pickled module",
    "torchscript": "TorchScript",
    "exported": "exported program",
}
"""Containers that hold the model itself."""


def container_words(checkpoint: CheckpointRecord) -> list[str]:
    """What kind of file it is; nothing for a model in memory."""
    if checkpoint.container is None:
        return []
    key = f", key {visible(checkpoint.key)}" if checkpoint.key else ""
    known = _WITH_CODE.get(checkpoint.container)
    if known is not None:
        return [known + key]
    return [f"state dict ({visible(checkpoint.container)}{key})"]


def _source(data: CalibrationRecord) -> str:
    """The first word of the description: what names the data."""
    return path_or(data.data and data.data.partition(_APART)[0], "data in memory")


def _samples(data: CalibrationRecord) -> str:
    """The rest of the description, which tells what was drawn, and how it was batched."""
    drawn = (data.data or "").partition(_APART)[2] or count(data.samples, "sample")
    size = "" if data.batch_size is None else f" of {data.batch_size}"
    return f"{visible(drawn)}; {count(data.batches, 'batch', 'batches')}{size}"


def _run(data: CalibrationRecord) -> str:
    parts = [f"seed {data.seed}", visible(data.device)]
    parts += [f"{data.windows} windows"] if data.windows > 1 else []
    parts += [visible(data.method)] if data.method != "lockstep" else []
    return ", ".join(parts)
