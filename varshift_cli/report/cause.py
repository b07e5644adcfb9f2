"""The screens of ``varshift explain``: one cause, or all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.text import Text

from varshift_cli.causes import Cause
from varshift_cli.report.screen import PLAIN, Style, block, spaced, to_text

GUTTER = 11

_LETTER = re.compile(r"\b[TCER]/[TCER]\b|(?<!\w)[TCR](?!\w)")
_LETTERS = (
    "The variance of what enters the layer, per channel: R as stored (running_var); T on these "
    "data with dropout on, as in training; C the same with dropout off; E in eval(), as deployed. "
    "Each ratio is a factor: T/R stale, C/T dropout, E/C inherited; multiplied they give E/R, how "
    "far off the layer is."
)


def render_cause(cause: Cause, style: Style = PLAIN) -> str:
    """What it is in short, why it is so, how it shows, what to do, where to read more."""
    title = Text.assemble((cause.code, "bold"), "  ", (cause.title, "bold"))
    blocks = (
        [title],
        _paragraphs("In short", cause.short, style),
        _paragraphs("Why", cause.why, style),
        _paragraphs("Signature", cause.signature, style),
        _letters(cause, style),
        _remedies(cause, style),
        block("Reference", Text(cause.reference, "dim"), style, gutter=GUTTER),
    )
    return to_text(spaced(blocks), style)


def render_catalogue(causes: Iterable[Cause], style: Style = PLAIN) -> str:
    """Every code and title, by family."""
    blocks: list[Sequence[Text]] = []
    ordered = sorted(causes, key=lambda cause: (cause.family.order, cause.code))
    for family, members in groupby(ordered, key=lambda cause: cause.family):
        lines = [Text.assemble((each.code, "bold"), "  ", each.title) for each in members]
        blocks.append([Text(family.value, "dim"), *lines])
    blocks.append([Text("varshift explain CODE tells the rest", "dim")])
    return to_text(spaced(blocks), style)


def _letters(cause: Cause, style: Style) -> list[Text]:
    """What the letters of the signature stand for, where it has some."""
    if _LETTER.search(cause.signature) is None:
        return []
    return block("Letters", Text(_LETTERS), style, gutter=GUTTER)


def _paragraphs(label: str, text: str, style: Style) -> list[Text]:
    return block(label, Text(text), style, gutter=GUTTER)


def _remedies(cause: Cause, style: Style) -> list[Text]:
    lines: list[Text] = []
    for index, remedy in enumerate(cause.remedies_for(None)):
        label = "" if index else "Remedies"
        title = remedy.title + (" (needs training)" if remedy.needs_training else "")
        lines += block(label, Text(f"{index + 1}. {title}"), style, gutter=GUTTER)
        lines += block(
            "", Text(remedy.how, "bold" * _is_command(remedy.how)), style, gutter=GUTTER + 3
        )
    return lines


def _is_command(how: str) -> bool:
    return how.startswith("varshift ")
