"""Ctrl-C comes between any two steps, those of tidying up too; here is what makes it wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupts(*, most: int | None = None) -> Iterator[None]:
    """Let Ctrl-C wait until the end: for steps that belong together and take no time.

    Args:
        most: So many are held and no more, for steps that may take their time: who presses again
            means it.

    Only the main thread is ever interrupted, so that in others there is nothing to hold.
    """
    main = threading.current_thread() is threading.main_thread()
    # A handler that is not Python's (None) could not be put back.
    if not main or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append((number, frame))
        if most is not None and len(held) > most and callable(before):
            held.clear()
            before(number, frame)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held and callable(before):
            before(*held[0])


@contextmanager
def tidied(tidy: Callable[[], None]) -> Iterator[None]:
    """Run ``tidy`` on every exit, whole and once, however Ctrl-C falls.

    A plain ``finally`` can be interrupted before its first step, or between two.
    """
    done = False

    def once() -> None:
        nonlocal done
        with held_interrupts():
            if not done:
                done = True
                tidy()

    try:
        try:
            yield
        finally:
            once()
    except BaseException:
        once()
        raise
