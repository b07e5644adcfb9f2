"""Lines of styled text: how every screen is laid out, and how it becomes a string.

A screen is a list of ``rich.text.Text`` lines that already have their final breaks. Markup, emoji
codes and highlighting are off: what a name says is what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import zip_longest
from typing import TYPE_CHECKING, cast

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""Blanks between columns."""


@dataclass(frozen=True, slots=True)
class Style:
    """The surface that a screen is drawn on.

    A screen is a function of its record and of this, of nothing else: no clock, no environment.
    """

    width: int = 100
    colour: bool = False
    fold: bool = False
    """Break what is longer than a line. Without it (files, pipes) no name and no command is ever
    broken, and lines may grow beyond ``width``."""
    ascii_only: bool = False
    """Draw bars from ``#`` instead of block characters."""


PLAIN = Style()
"""What files and pipes get."""


def to_text(lines: Iterable[Text], style: Style) -> str:
    """The lines as one string, with ANSI colours if the style has them."""
    if not style.colour:  # then rich would bring its time, and nothing else
        return "".join(f"{line.plain.rstrip()}\n" for line in lines)
    from rich.console import Console  # noqa: PLC0415  loads much, for colour alone

    buffer = StringIO()
    console = Console(
        file=buffer,
        width=style.width,
        force_terminal=True,
        color_system="256",
        no_color=False,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for line in lines:
        line.rstrip()
        console.print(line, soft_wrap=True)
    return buffer.getvalue()


def spaced(blocks: Iterable[Sequence[Text]]) -> list[Text]:
    """The blocks that have lines, with a blank line between."""
    lines: list[Text] = []
    for each in blocks:
        if each:
            lines += [*([Text()] if lines else []), *each]
    return lines


def wrap(text: Text, width: int, *, fold: bool) -> list[Text]:
    """Break a text into lines of at most ``width`` cells, at blanks.

    A word that is longer is broken too if ``fold`` is set, else it stays whole.
    """
    width = max(width, 1)
    if not fold:
        width = max([width, *(Text(word).cell_len for word in text.plain.split())])
    return list(text.wrap(_RULER, width, overflow="fold"))


def columns(cells: Sequence[Text], widths: Sequence[int], *, fold: bool) -> list[Text]:
    """One table row: each cell wrapped to its column's width, side by side."""
    wrapped = [wrap(cell, width, fold=fold) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for parts in zip_longest(*wrapped):
        line = Text()
        for part, width in zip(parts, widths, strict=True):
            line.append_text(part or Text())
            line.append(" " * (width - (part.cell_len if part else 0) + GAP))
        lines.append(line)
    return lines


def table(heads: Sequence[str], rows: Sequence[Sequence[Text]], style: Style) -> list[Text]:
    """Columns as wide as their longest cell; the first, of names, takes what the others leave.

    Without rows it has no heads either.
    """
    if not rows:
        return []
    lines = [[Text(each, "dim") for each in heads], *rows]
    widths = [max(line[at].cell_len for line in lines) for at in range(len(heads))]
    if style.fold:
        spare = style.width - sum(widths[1:]) - GAP * len(widths)
        widths[0] = max(_LEAST_NAME, min(widths[0], spare))
    return [each for line in lines for each in columns(line, widths, fold=style.fold)]


_LEAST_NAME = 12


def block(
    label: str, body: Text, style: Style, *, gutter: int, label_style: str = ""
) -> list[Text]:
    """A paragraph with its label in a gutter to the left."""
    lines = wrap(body, style.width - gutter, fold=style.fold) or [Text()]
    lead = Text(label.ljust(gutter), label_style)
    return [Text.assemble(lead if i == 0 else " " * gutter, each) for i, each in enumerate(lines)]


def blocks(label: str, bodies: Iterable[Text], style: Style, *, gutter: int) -> list[Text]:
    """Paragraphs that share a label, which stands beside the first."""
    lines: list[Text] = []
    for body in bodies:
        lines += block("" if lines else label, body, style, gutter=gutter)
    return lines


def pairs(
    rows: Sequence[tuple[str, str, str]], style: Style, *, gutter: int, remark_style: str = ""
) -> list[Text]:
    """Rows of a label, a command or path, and a remark on it.

    Remarks stand in a column of their own if all fit, else each below its row. What they are about
    is never broken, so that it can be copied.
    """
    room = max((Text(lead).cell_len for _, lead, _ in rows), default=0) + 2 * GAP
    beside = all(gutter + room + len(remark) <= style.width for _, _, remark in rows)
    lines = []
    for label, lead, remark in rows:
        line = Text.assemble(label.ljust(gutter), (lead, "bold"))
        if beside:
            line.append(" " * (room - Text(lead).cell_len))
            lines.append(line.append(remark, remark_style))
        else:
            body = Text("  " + remark, remark_style)
            lines += [line, *block("", body, style, gutter=gutter)]
    return lines


# Text.wrap asks a console only how to justify, and nothing here is justified.
_RULER = cast("Console", None)
