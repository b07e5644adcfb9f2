"""Fits the names in a file to the names in a model: wrappers leave prefixes, here they go.

``DataParallel`` and DDP put ``module.`` before every name, ``torch.compile`` ``_orig_mod.``,
Lightning modules the attribute's name, often ``model.`` or ``net.``; either side may have them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_WRAPPERS = ("module", "_orig_mod", "model", "net")
_TRANSPARENT = ("module", "_orig_mod")
"""Wrappers that also appear inside a name, around a part of the model."""

_STATISTICS = ("running_mean", "running_var")
_SHOWN = 5
_MAX_WRAPPERS = 8
_COUNTERS = ("n_averaged", "total_ops", "total_params", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Fit:
    """Which stored name serves which name of the model."""

    stored: dict[str, str]
    """Model's name -> name as stored."""
    missing: tuple[str, ...]
    """Model's names that nothing serves; an error."""
    missing_statistics: tuple[str, ...]
    """BatchNorm running buffers that nothing serves; the model keeps its own."""
    unexpected: tuple[str, ...]
    """Stored names that serve nothing; an error."""
    notes: tuple[str, ...]


def fit_names(stored: Sequence[str], wanted: Sequence[str]) -> Fit:
    """Match stored names to wanted ones, stripping wrappers' prefixes where that helps."""
    best, prefix = _best_prefixes(stored, wanted)
    loose = _loose_match(stored, wanted)
    if len(loose) > len(best):
        best, prefix = loose, ""
    used = set(best.values())
    left = [name for name in stored if name not in used]
    unserved = [name for name in wanted if name not in best]
    notes: list[str] = []
    counters = [name for name in unserved if _last(name) == "num_batches_tracked"]
    if counters:
        notes.append(f"{len(counters)} num_batches_tracked are missing: the model's own are kept")
    statistics = [name for name in unserved if _last(name) in _STATISTICS]
    missing = [name for name in unserved if name not in counters and name not in statistics]
    unexpected = _sort_out(left, prefix, notes, complete=not missing)
    return Fit(best, tuple(missing), tuple(statistics), tuple(unexpected), tuple(notes))


def _sort_out(left: Sequence[str], prefix: str, notes: list[str], *, complete: bool) -> list[str]:
    """The left-over names that are an error; the harmless ones become notes."""
    harmless = [name for name in left if _last(name) in _COUNTERS]
    rest = [name for name in left if name not in set(harmless)]
    for last, count in Counter(_last(name) for name in harmless).items():
        notes.append(f"{count} entries named {last} are not the model's: ignored")
    if prefix and complete:
        outside = [name for name in rest if not name.startswith(prefix)]
        if outside:
            notes.append(
                f"{len(outside)} entries outside {prefix!r} are not the model's: "
                f"{', '.join(outside[:_SHOWN])}{' ...' if len(outside) > _SHOWN else ''}"
            )
        rest = [name for name in rest if name.startswith(prefix)]
    return rest


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _best_prefixes(stored: Sequence[str], wanted: Sequence[str]) -> tuple[dict[str, str], str]:
    """The match under one prefix per side that serves the most names; the shortest on a tie."""
    best: dict[str, str] = {}
    best_prefix = ""
    for theirs in _prefixes(stored):
        cut = {name[len(theirs) :]: name for name in stored if name.startswith(theirs)}
        for ours in _prefixes(wanted):
            match = {
                name: cut[name[len(ours) :]]
                for name in wanted
                if name.startswith(ours) and name[len(ours) :] in cut
            }
            if len(match) > len(best):
                best, best_prefix = match, theirs
    return best, best_prefix


def _prefixes(names: Iterable[str]) -> list[str]:
    """Every run of wrappers' prefixes that some name begins with, the shortest first."""
    found = {""}
    for name in names:
        parts = name.split(".")[:-1]
        prefix = ""
        for part in parts[:_MAX_WRAPPERS]:
            if part not in _WRAPPERS:
                break
            prefix += f"{part}."
            found.add(prefix)
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _loose_match(stored: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Match after dropping transparent wrappers anywhere, where that stays one to one."""
    theirs = _dropped(stored)
    ours = _dropped(wanted)
    if theirs is None or ours is None:
        return {}
    return {name: theirs[short] for short, name in ours.items() if short in theirs}


def _dropped(names: Sequence[str]) -> dict[str, str] | None:
    """Short name -> name; ``None`` where two names would become one."""
    found: dict[str, str] = {}
    for name in names:
        short = ".".join(part for part in name.split(".") if part not in _TRANSPARENT)
        if short in found:
            return None
        found[short] = name
    return found
