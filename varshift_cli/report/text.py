"""Words and numbers as every screen shows them."""

from __future__ import annotations

import math
import re

from varshift_cli.records import Interval

_WHOLE = 100.0
_TINY = 0.1
_COMMAND = re.compile(r"(?<!\S)::")


def visible(text: str) -> str:
    """The text with control and other invisible characters written out, ESC as ``x1b``.

    Layer names and paths come from files that others made; raw they could move the cursor, change
    colours, or read right to left.
    """
    shown = "".join(each if each.isprintable() else _escape(each) for each in text)
    # In a job's log a line that begins with :: or holds ##[ is a command to GitHub's runner; a
    # line may begin at any word.
    return _COMMAND.sub(r"\\x3a:", shown).replace("##[", "#\\x23[")


def layer_name(name: str) -> str:
    """A module path as shown; the root module has none."""
    return visible(name) if name else "(the model)"


def ratio(value: float) -> str:
    """A ratio near 1: ``2.92``; ``132``; ``0.031``."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= _WHOLE:
        return f"{value:.3g}"
    return f"{value:.2f}" if abs(value) >= _TINY else f"{value:.2g}"


def interval(value: Interval | None) -> str:
    """``2.84-3.00``; nothing where it is unknown."""
    return "" if value is None else f"{ratio(value.low)}-{ratio(value.high)}"


def percent(share: float) -> str:
    """A share between 0 and 1: ``98.1 %``."""
    return f"{100 * share:.1f} %"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1,000 samples``, ``1 layer``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
