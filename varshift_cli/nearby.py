"""What a mistyped name may have meant."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MOST = 10_000
"""Names of a folder that are looked at."""
_ALIKE = 0.7


def nearest(name: str, known: Iterable[str], *, alike: float = _ALIKE) -> str | None:
    """The one of these names that looks most like another, capitals aside; ``None`` if none does.

    Args:
        name: As it was typed.
        known: What there is.
        alike: How much has to agree, 0 to 1, as :mod:`difflib` counts.
    """
    import difflib  # noqa: PLC0415 - where nothing is mistyped nothing waits for it

    folded = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=alike)
    return folded[found[0]] if found else None


def file_hint(path: str | Path, otherwise: str | None = None) -> str | None:
    """What to say of a file that is not there: which one looks like it, or that its folder lacks.

    Args:
        path: The file, which does not exist.
        otherwise: What to say where neither helps.
    """
    place = Path(path)
    try:
        with os.scandir(place.parent) as entries:
            names = [each.name for each in islice(entries, _MOST)]
    except FileNotFoundError:
        return f"There is no folder {place.parent}."
    except OSError:
        return otherwise
    near = nearest(place.name, names)
    return otherwise if near is None else f"Did you mean {place.with_name(near)}?"
