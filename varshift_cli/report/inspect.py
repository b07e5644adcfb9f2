"""The screen of ``varshift inspect``: calls in execution order, and what reaches what."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from varshift_cli.records import DropoutRecord, InspectedLayer, Inspection
from varshift_cli.report.paragraphs import note_lines, skipped_lines
from varshift_cli.report.screen import GAP, PLAIN, Style, block, columns, pairs, spaced, to_text
from varshift_cli.report.table import container_words, header_lines, path_or
from varshift_cli.report.text import count, layer_name, visible

GUTTER = 13

_APART = "  "
_MOST_LINKS = 4  # named per call; the rest are counted
_LEAST_WIRING = 18  # a narrower column would break every name in it
_MOST_NAME = 3  # names take at most a third of a terminal before they are folded


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    what: str
    wiring: str
    location: str
    is_dropout: bool


def render_inspect(
    inspection: Inspection, style: Style = PLAIN, *, typed: Sequence[str] = ()
) -> str:
    """The inspection as a screen of text.

    Args:
        inspection: What was seen.
        style: The surface to draw on.
        typed: The options that named the model and the data, repeated in the command to run next.
    """
    blocks = (
        _header(inspection, style),
        _table(inspection, style),
        _legend(inspection, style),
        [
            *skipped_lines("Skipped", inspection.skipped, style, gutter=GUTTER),
            *skipped_lines("Not written", inspection.unwritten, style, gutter=GUTTER),
            *_always_on(inspection, style),
            *note_lines("Notes", inspection.notes, style, gutter=GUTTER),
        ],
        _next(inspection, style, typed),
    )
    return to_text(spaced(blocks), style)


def _header(inspection: Inspection, style: Style) -> list[Text]:
    checkpoint = inspection.checkpoint
    layers = {each.name.rpartition("#")[0] or each.name: each for each in inspection.layers}
    total = len(layers) + len(inspection.skipped)
    parts = [*container_words(checkpoint), count(total, "BatchNorm layer")]
    parts.append(count(len(inspection.dropouts), "dropout") if inspection.dropouts else _none())
    source, _, drawn = (inspection.data or "").partition(_APART)
    rows = [
        (path_or(checkpoint.path, "model"), ", ".join(parts), visible(checkpoint.arch or "")),
        (path_or(source or None, "data"), visible(drawn), visible(inspection.device)),
    ]
    return header_lines(rows, style)


def _none() -> str:
    return "no dropout seen"


def _table(inspection: Inspection, style: Style) -> list[Text]:
    rows = list(_rows(inspection))
    if not rows:
        return []
    known = any(row.location for row in rows)
    heads = ("call", "what", "wiring", "where" if known else "")
    widths = _fit(rows, style)
    lines = columns([Text(each, "dim") for each in heads], widths, fold=style.fold)
    for row in rows:
        cells = [
            Text(row.name, "" if row.is_dropout else "bold"),
            Text(row.what),
            Text(row.wiring),
            Text(row.location, "dim"),
        ]
        lines += columns(cells, widths, fold=style.fold)
    return lines


def _rows(inspection: Inspection) -> Iterator[_Row]:
    layers = {each.name: each for each in inspection.layers}
    dropouts = {each.name: each for each in inspection.dropouts}
    for name in inspection.order:
        if name in layers:
            yield _layer(layers[name])
        elif name in dropouts:
            yield _dropout(dropouts[name], inspection)


def _layer(layer: InspectedLayer) -> _Row:
    links = [f"{visible(link.name)} ({link.case.value})" for link in layer.dropouts]
    what = f"{visible(layer.kind)} {layer.num_features}"
    wiring = _links("<", links) if links else ""
    return _Row(layer_name(layer.name), what, wiring, visible(layer.location or ""), False)


def _links(sign: str, links: Sequence[str]) -> str:
    """One to a line, the first behind the sign."""
    shown = list(links[:_MOST_LINKS])
    if len(links) > _MOST_LINKS:
        shown.append(f"and {len(links) - _MOST_LINKS} more")
    return "\n".join(f"{' ' if index else sign} {link}" for index, link in enumerate(shown))


def _dropout(dropout: DropoutRecord, inspection: Inspection) -> _Row:
    cases = {
        layer.name: link.case.value
        for layer in inspection.layers
        for link in layer.dropouts
        if link.name == dropout.name
    }
    reached = [f"{layer_name(name)} ({cases[name]})" for name in dropout.reaches]
    p = "" if dropout.p is None else f" p={dropout.p:g}"
    return _Row(
        visible(dropout.name),
        f"{visible(dropout.kind)}{p}",
        _links(">", reached or ["no BatchNorm"]),
        visible(dropout.location or ""),
        True,
    )


def _fit(rows: Sequence[_Row], style: Style) -> list[int]:
    """Columns as wide as their longest cell; the wiring takes what is left of the line."""
    natural = [
        max(Text(line).cell_len for cell in cells for line in cell.splitlines() or [""])
        for cells in (
            ["call", *(row.name for row in rows)],
            ["what", *(row.what for row in rows)],
            ["wiring", *(row.wiring for row in rows)],
            ["where", *(row.location for row in rows)],
        )
    ]
    name, what, wiring, where = natural
    if style.fold:
        name = min(name, style.width // _MOST_NAME)
        where = min(where, style.width // _MOST_NAME)
    room = style.width - name - what - where - 3 * GAP
    return [name, what, min(wiring, max(room, _LEAST_WIRING)), where]


def _legend(inspection: Inspection, style: Style) -> list[Text]:
    if not any(layer.dropouts for layer in inspection.layers):
        return []
    text = "< reached by, > reaches, no other BatchNorm between: (a) straight, (b) through weights"
    return block("", Text(text, "dim"), style, gutter=0)


def _always_on(inspection: Inspection, style: Style) -> list[Text]:
    if not inspection.always_on:
        return []
    names = ", ".join(visible(name) for name in inspection.always_on)
    return block("Always on", Text(f"{names}: stays on in eval()"), style, gutter=GUTTER)


def _next(inspection: Inspection, style: Style, typed: Sequence[str]) -> list[Text]:
    path = inspection.checkpoint.path
    if path is None:
        return []
    command = f"varshift scan {visible(shlex.join([path, *typed]))}"
    return pairs(
        [("next", command, "measures how far each layer is off, and why")],
        style,
        gutter=GUTTER,
        remark_style="dim",
    )
