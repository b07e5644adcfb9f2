"""Progress for people: on stderr, on a terminal, and only when it takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from varshift_cli.cli import output
from varshift_cli.records import Progress, SilentProgress
from varshift_cli.report import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PATIENCE = 1.0
"""Seconds before anything is shown."""


@contextmanager
def progress_on_stderr(*, quiet: bool) -> Iterator[Progress]:
    """The progress to hand to the pipeline; gone from the screen at the end, however it ends."""
    if quiet or not sys.stderr.isatty():
        yield SilentProgress() if quiet else Remarks()
        return
    bars = TerminalProgress()
    try:
        yield bars
    finally:
        bars.close()


class Remarks(SilentProgress):
    """No bars where there is no terminal, but remarks all the same."""

    def remark(self, text: str) -> None:
        """Say it on stderr."""
        output.remark(visible(text))


class TerminalProgress:
    """A bar for the stage that runs, drawn once ``PATIENCE`` is over."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._total = 0
        self._done = 0

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` equal steps begins."""
        self.finish()
        self._stage, self._total, self._done = stage, total, 0
        self._show()

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        self._done += steps
        self._show()

    def finish(self) -> None:
        """The stage is over."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
        self._task = None

    def remark(self, text: str) -> None:
        """Say it on stderr, above the bar if there is one."""
        if self._bars is None:
            output.remark(visible(text))
        else:
            self._bars.console.print(visible(text), markup=False, highlight=False)

    def close(self) -> None:
        """Take everything off the screen."""
        self.finish()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _show(self) -> None:
        if time.monotonic() - self._began < PATIENCE:
            return
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        if self._task is None:
            self._task = self._bars.add_task(self._stage, total=self._total or None)
        self._bars.update(self._task, completed=self._done)


def _new_bars() -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
