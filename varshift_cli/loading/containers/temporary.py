"""Temporary files that are gone afterwards, Ctrl-C included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from varshift_cli.interrupts import held_interrupts, tidied

_LONGEST_NAME = 80


@contextmanager
def temporary_beside(output: Path) -> Iterator[Path]:
    """A new empty file in the output's folder, gone afterwards whatever happens.

    Raises:
        OSError: It cannot be made there.
    """
    made: list[Path] = []

    def remove() -> None:
        for file in made:
            with suppress(OSError):
                file.unlink(missing_ok=True)

    with tidied(remove):
        with held_interrupts():
            handle, name = tempfile.mkstemp(
                prefix=f".{output.name[:_LONGEST_NAME]}.", suffix=".tmp", dir=output.parent
            )
            made.append(Path(name))
            os.close(handle)
        yield made[0]
