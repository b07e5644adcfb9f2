"""The screens of ``varshift explain``: one cause, or all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.text import Text

from varshift_cli.causes import Cause
from varshift_cli.report.screen import PLAIN, Style, block, spaced, to_text

GUTTER = 11

_OPTIONS = "Commands need the --arch and --data of your scan, unless varshift.toml has them."


def render_cause(cause: Cause, style: Style = PLAIN) -> str:
    """What it is in short, why it is so, how it shows, what to do, where to read more.

    The letters come before the signature, which uses them.
    """
    title = Text.assemble((cause.code, "bold"), "  ", (cause.title, "bold"))
    blocks = (
        [title],
        _paragraphs("In short", cause.short, style),
        _paragraphs("Why", cause.why, style),
        _letters(cause, style),
        _paragraphs("Signature", cause.signature, style),
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
    told = "\n".join(cause.legend)
    return block("Letters", Text(told), style, gutter=GUTTER) if told else []


def _paragraphs(label: str, text: str, style: Style) -> list[Text]:
    return block(label, Text(text), style, gutter=GUTTER)


def _remedies(cause: Cause, style: Style) -> list[Text]:
    lines: list[Text] = []
    remedies = cause.remedies_for(None)
    for index, remedy in enumerate(remedies):
        label = "" if index else "Remedies"
        title = remedy.title + (" (needs training)" if remedy.needs_training else "")
        lines += block(label, Text(f"{index + 1}. {title}"), style, gutter=GUTTER)
        lines += block(
            "", Text(remedy.how, "bold" * _is_command(remedy.how)), style, gutter=GUTTER + 3
        )
    if any(_is_command(each.how) for each in remedies):
        lines += block("", Text(_OPTIONS, "dim"), style, gutter=GUTTER)
    return lines


def _is_command(how: str) -> bool:
    return how.startswith("varshift ")
