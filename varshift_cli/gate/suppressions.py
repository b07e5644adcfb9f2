"""Set aside what the settings say, with the reason; what has expired, or fits nothing, is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

from varshift_cli.records import Finding, Suppressed, Suppression


@dataclass(frozen=True, slots=True)
class SetAside:
    """The suppressions that hold today, applied to one report."""

    records: tuple[Suppressed, ...]
    notes: tuple[str, ...]
    """What users should know: expired ones, and those that concern nothing."""

    def reason_for(self, name: str) -> str | None:
        """Why a layer is set aside; ``None`` if it is not."""
        return next((each.reason for each in self.records if name in each.layers), None)


def set_aside(
    suppressions: Iterable[Suppression],
    names: Sequence[str],
    findings: Sequence[Finding],
    today: date,
) -> SetAside:
    """Apply suppressions to the layers of a report.

    Args:
        suppressions: As the settings have them.
        names: Layers of the report, and those that its findings name.
        findings: Their codes choose layers as well.
        today: Decides which have expired.
    """
    records, notes = [], []
    for each in suppressions:
        what = describe(each)
        if each.expires is not None and each.expires < today:
            notes.append(f"the suppression of {what} ({each.reason}) expired on {each.expires}")
            continue
        layers = _layers(each, names, findings)
        if not layers:
            notes.append(f"the suppression of {what} ({each.reason}) concerns no layer")
        expires = None if each.expires is None else each.expires.isoformat()
        records.append(Suppressed(each.reason, layers, each.pattern, each.code, expires))
    return SetAside(tuple(records), tuple(notes))


def describe(suppression: Suppression) -> str:
    """``VS101 in head.*``."""
    code, pattern = suppression.code, suppression.pattern
    if code is not None and pattern is not None:
        return f"{code} in {pattern}"
    return code or pattern or "everything"


def _layers(
    suppression: Suppression, names: Sequence[str], findings: Sequence[Finding]
) -> tuple[str, ...]:
    chosen = dict.fromkeys(names)
    if suppression.pattern is not None:
        chosen = {name: None for name in chosen if fnmatchcase(name, suppression.pattern)}
    if suppression.code is not None:
        found = {name for each in findings if each.code == suppression.code for name in each.layers}
        chosen = {name: None for name in chosen if name in found}
    return tuple(chosen)
