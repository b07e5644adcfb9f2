"""The catalogue of causes: code, signature, why, remedies, reference. Texts alone, no rules.

A code belongs to one cause for good. VS1xx are noise before BatchNorm and what follows from it,
VS2xx are running statistics that are wrong by themselves, VS3xx come of the training batches, VS4xx
of the network's structure, VS5xx of the data.
"""

from __future__ import annotations

from collections.abc import Mapping

from varshift_cli.causes import batches, buffers, data, dropout, prediction, stale, structure
from varshift_cli.causes.cause import Cause, Family
from varshift_cli.errors import UsageError
from varshift_cli.nearby import nearest

__all__ = ["CATALOGUE", "Cause", "Family", "find"]

CATALOGUE: Mapping[str, Cause] = {
    cause.code: cause
    for family in (dropout, prediction, buffers, stale, batches, structure, data)
    for cause in family.CAUSES
}
"""Every cause by its code, in the order of the codes."""


def find(code: str) -> Cause:
    """The cause with this code, in any case and with or without ``VS``.

    Raises:
        UsageError: There is no such code.
    """
    wanted = code.strip().upper()
    wanted = wanted if wanted.startswith("VS") else f"VS{wanted}"
    if wanted in CATALOGUE:
        return CATALOGUE[wanted]
    near = _nearest(wanted)
    raise UsageError(
        f"there is no cause {code!r}",
        hint=f"did you mean {near}?" if near else "varshift explain lists them all",
    )


_LENGTH = len("VS101")
_NEAR = 9
_ALIKE = 0.8


def _nearest(wanted: str) -> str | None:
    """The code of the same hundred that is fewest numbers away; else one that looks alike."""
    if len(wanted) == _LENGTH and wanted[2:].isdecimal():
        siblings = [code for code in CATALOGUE if code[:3] == wanted[:3]]
        apart = {code: abs(int(code[2:]) - int(wanted[2:])) for code in siblings}
        near = min(siblings, key=lambda code: apart[code], default=None)
        return near if near is not None and apart[near] <= _NEAR else None
    return nearest(wanted, CATALOGUE, alike=_ALIKE)
