"""Escaping: text that others made, made harmless once for each kind of file.

Layer names, paths and messages come from checkpoints and source files. All are first made visible
(no control characters, no right-to-left overrides), then freed of what the format would act on.
"""

from __future__ import annotations

import html
import re

from varshift_cli.report.text import visible

_ACTIVE = {ord(each): f"&#{ord(each)};" for each in "\\`*_{}[]()#+-.!|~@:$/^=<>&\"'"}
"""All that Markdown, its tables, mentions, issue links, autolinks, emoji and mathematics act on."""

_WORDS = {ord(each): f"&#{ord(each)};" for each in "\\`*_[]|~$<>&"}
_WORDS |= {ord(each): f"{each}&#8203;" for each in "@#"}
"""The same for sentences, where single dots, colons and brackets are harmless. Mentions and issue
links are looked for in the finished text, so that only a (zero-width) space keeps them away."""

_PLAIN = re.compile(r"[\w.:/=(),+%-]+( [\w.:/=(),+%-]+)*", re.ASCII)
"""What can stand between backticks as it is, so that the Markdown itself stays readable."""


def html_text(text: str) -> str:
    """Text for HTML, between tags or in a quoted attribute."""
    return html.escape(visible(text))


def markdown_code(text: str) -> str:
    """Text in a fixed-width font for GitHub's Markdown, tables included."""
    if _PLAIN.fullmatch(text):
        return f"`{text}`"
    return f"<code>{visible(text).translate(_ACTIVE)}</code>"


def markdown_text(text: str) -> str:
    """Running text for GitHub's Markdown, tables included."""
    shown = visible(text).translate(_WORDS)
    # What would become a link by itself: a scheme, or www.
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; dots stand for what its middle was."""
    if len(text) <= most:
        return text
    gap = " ... "
    half = (most - len(gap)) // 2
    return f"{text[:half]}{gap}{text[len(text) - half :]}"
