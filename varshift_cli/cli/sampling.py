"""``--samples``: a number, or ``auto``."""

from __future__ import annotations

from dataclasses import dataclass

from varshift_cli.errors import UsageError

FIRST = 256
"""Samples of the first look."""
MOST = 65_536
"""Samples of the last, unless ``auto:N`` says otherwise; a stream may never end."""
LEAST = 2


@dataclass(frozen=True, slots=True)
class Draw:
    """How many samples to draw at first, and at most."""

    samples: int
    most: int | None = None
    """``None`` for a fixed number."""


def read_samples(said: str | int) -> Draw:
    """A number of samples, ``auto``, or ``auto:N`` for at most N.

    Raises:
        UsageError: It is none of these.
    """
    text = str(said)
    word, colon, number = text.partition(":")
    if word != "auto":
        return Draw(_number(text, text))
    most = _number(number, text) if colon else MOST
    return Draw(min(FIRST, most), most)


def _number(digits: str, whole: str) -> int:
    try:
        number = int(digits)
    except ValueError:
        raise UsageError(
            f"--samples must be a number, auto or auto:N, but is {whole}",
            hint="auto draws until the gate is decided, auto:8192 no more than 8,192",
        ) from None
    if number < LEAST:
        raise UsageError(f"--samples must be at least {LEAST}, but is {number}")
    return number
