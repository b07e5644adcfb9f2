"""How a long computation tells of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """How a long computation tells of itself; the rooms never print."""

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` equal steps begins."""

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""

    def finish(self) -> None:
        """The stage is over, by success or by error."""

    def remark(self, text: str) -> None:
        """Something worth saying before it is done, such as what it will cost."""


class SilentProgress:
    """The progress of a caller who does not care."""

    def start(self, stage: str, total: int) -> None:
        """Ignore."""

    def advance(self, steps: int = 1) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

    def remark(self, text: str) -> None:
        """Ignore."""


@contextmanager
def stage(progress: Progress, name: str, total: int) -> Iterator[Callable[[], None]]:
    """A stage of ``total`` steps, over by success or by error; what it gives tells of one step."""
    progress.start(name, total)
    try:
        yield progress.advance
    finally:
        progress.finish()
