"""Run a model's forward under interception, here or paused at every op.

:class:`PausedForward` runs one forward in a thread of its own and stops at each op until it is
told the result. Only one such thread ever runs, and every op is carried out by the thread that
drives them: one pool of workers, one heap, one inference mode (a thread per batch that computes
for itself was measured 15 % slower).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from varshift_cli.instrument.catalogue import SitesByStorage
from varshift_cli.instrument.interception import Interception, Op, Regime
from varshift_cli.instrument.modules import ModuleStack
from varshift_cli.records import Batch

Call = Callable[[Batch], Any]
"""Calls the model with a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Instrumented:
    """A model ready to be measured: how to call it, and how its calls are recognised."""

    call: Call
    sites: SitesByStorage
    stack: ModuleStack

    def run(self, regime: Regime, batch: Batch, index: int) -> Any:
        """One forward in this thread; returns the model's output."""
        with torch.inference_mode(), Interception(regime, self.sites, self.stack, index):
            return self.call(batch)


class AtOp(NamedTuple):
    """The forward waits for the result of an op."""

    op: Op
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The forward returned."""

    output: Any


@dataclass(frozen=True, slots=True, eq=False)
class Raised:
    """The forward raised."""

    error: BaseException


Pause = AtOp | Finished | Raised


class _AbandonedForward(BaseException):
    """Unwinds a forward that will not be finished, through the model's own ``finally``."""


class PausedForward:
    """One forward that stops at every op.

    Args:
        instrumented: The model.
        regime: Its calls come out as :class:`AtOp` like any other op.
        batch: What to call the model with.
        index: Which batch this is.
    """

    def __init__(
        self, instrumented: Instrumented, regime: Regime, batch: Batch, index: int
    ) -> None:
        self._instrumented = instrumented
        self._regime = regime
        self._batch = batch
        self.index = index
        self._mine, self._theirs = threading.Lock(), threading.Lock()
        self._mine.acquire()
        self._theirs.acquire()
        self._pause: Pause | None = None
        self._reply: Any = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._done = False

    def start(self) -> Pause:
        """Run to the first op."""
        self._thread.start()
        return self._wait()

    def resume(self, result: Any) -> Pause:
        """Hand in the result of the op and run to the next."""
        self._reply = result
        self._mine.release()
        return self._wait()

    def fail(self, error: BaseException) -> Pause:
        """Raise inside the forward, where the op was called: the model may catch it."""
        self._failure = error
        self._mine.release()
        return self._wait()

    def abandon(self) -> None:
        """Unwind the forward, if it still runs."""
        while self._thread.is_alive() and not self._done:
            self.fail(_AbandonedForward())

    def _wait(self) -> Pause:
        self._theirs.acquire()
        pause, self._pause = self._pause, None
        if isinstance(pause, (Finished, Raised)):
            self._done = True
            self._thread.join()
        assert pause is not None
        return pause

    def _run(self) -> None:
        try:
            mode = Interception(
                self._regime,
                self._instrumented.sites,
                self._instrumented.stack,
                self.index,
                self._execute,
            )
            with torch.inference_mode(), mode:
                self._pause = Finished(self._instrumented.call(self._batch))
        except BaseException as error:  # noqa: BLE001 - carried to the driving thread, whatever it is
            self._pause = Raised(error)
        self._theirs.release()

    def _execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self._pause = AtOp(op, args, kwargs)
        self._theirs.release()
        self._mine.acquire()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        reply, self._reply = self._reply, None
        return reply
