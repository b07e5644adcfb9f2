"""What a mistyped name may have meant."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MOST = 10_000
"""Names of a folder that are looked at."""
_ALIKE = 0.65
_ALIKE_WHOLE = 0.8


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


def _nearest_name(place: Path, names: Iterable[str]) -> str | None:
    """A name of the same suffix whose rest looks alike; else one that is alike as a whole.

    Counted in, ``.py`` would be half of what two short names have in common.
    """
    same = {each.removesuffix(place.suffix): each for each in names if _ends(each, place.suffix)}
    stem = nearest(place.stem, same)
    if stem is not None:
        return same[stem]
    others = [each for each in names if not _ends(each, place.suffix)]
    return nearest(place.name, others, alike=_ALIKE_WHOLE)


def _ends(name: str, suffix: str) -> bool:
    return Path(name).suffix == suffix


def file_hint(path: str | Path, otherwise: str | None = None) -> str | None:
    """What to say of a file that is not there: which one looks like it, or that its folder lacks.

    Args:
        path: The file, which does not exist.
        otherwise: What to say where neither helps.
    """
    place = Path(path)
    try:
        with os.scandir(place.parent) as entries:
            names = sorted(each.name for each in islice(entries, _MOST))
    except FileNotFoundError:
        return f"There is no folder {place.parent}."
    except OSError:
        return otherwise
    near = _nearest_name(place, names)
    return otherwise if near is None else f"Did you mean {place.with_name(near)}?"
