"""The catalogue of causes: code, signature, why, remedies, reference.

A code belongs to one cause for good. VS1xx are noise before BatchNorm and what follows from it,
VS2xx are running statistics that are wrong by themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from varshift_cli.causes import buffers, dropout
from varshift_cli.causes.cause import Cause, Family
from varshift_cli.errors import UsageError

__all__ = ["CATALOGUE", "Cause", "Family", "find"]

CATALOGUE: Mapping[str, Cause] = {cause.code: cause for cause in (*dropout.CAUSES, *buffers.CAUSES)}
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
    near = difflib.get_close_matches(wanted, CATALOGUE, n=1)
    raise UsageError(
        f"there is no cause {code!r}",
        hint=f"did you mean {near[0]}?" if near else "varshift explain lists them all",
    )
