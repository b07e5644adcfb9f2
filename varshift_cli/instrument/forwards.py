"""Run a model's forward under interception, here or paused at every op.

:class:`PausedForward` runs one forward in a thread of its own and stops at each op until it is
told the result. Only one such thread ever runs, and every op is carried out by the thread that
drives them: one pool of workers, one heap, one inference mode (a thread per batch that computes
for itself was measured 15 % slower).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from varshift_cli.instrument.calls import (
    BatchNormCall,
    Execute,
    NoiseCall,
    Op,
    Regime,
    normalise_by_batch,
    run_here,
)
from varshift_cli.instrument.catalogue import SitesByStorage
from varshift_cli.instrument.interception import Interception
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
    autograd: list[bool]
    """Whether the forward calls autograd; empty until :meth:`decide` has tried."""

    def decide(self, few: Batch) -> None:
        """Find out by a small forward whether the model runs in inference mode.

        A forward that calls autograd itself does not: it is run without inference mode, where BN
        and dropout ops arrive in pieces, and hooks on their modules stand in for them.
        """
        if self.autograd:
            if self.autograd[0]:
                self.stack.hook_norms_and_dropouts()
            return
        try:
            if self._stays_in_inference_mode(few):
                self.autograd.append(False)
                return
        except Exception as error:  # noqa: BLE001 - what is wrong with it, the next forward tells
            if not any(part in str(error) for part in _OF_AUTOGRAD):
                return
        self.autograd.append(True)
        self.stack.hook_norms_and_dropouts()
        try:
            self._stays_in_inference_mode(few)
        except Exception:  # noqa: BLE001 - another fault, which the next forward tells
            self.autograd[0] = False
            self.stack.unhook_norms_and_dropouts()

    def _stays_in_inference_mode(self, few: Batch) -> bool:
        left = False

        def execute(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            nonlocal left
            left = left or not torch.is_inference_mode_enabled()
            return op(*args, **kwargs)

        with self.guard(), Interception(_AsDeployed(), self.sites, self.stack, 0, execute):
            self.call(few)
        return not left

    def guard(self) -> AbstractContextManager[Any]:
        """Inference mode; without it for a forward that calls autograd."""
        return torch.no_grad() if self.autograd == [True] else torch.inference_mode()

    def run(self, regime: Regime, batch: Batch, index: int, execute: Execute = run_here) -> Any:
        """One forward in this thread; returns the model's output."""
        with self.guard(), Interception(regime, self.sites, self.stack, index, execute):
            return self.call(batch)


_OF_AUTOGRAD = ("nference", "requires_grad", "require grad", "grad_fn", "autograd")
"""Parts of what torch says when autograd is called in inference mode."""


class _AsDeployed:
    """A regime that looks at nothing."""

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        return normalise_by_batch(call) if call.training else call.as_deployed()

    def noise(self, call: NoiseCall, batch: int) -> Any:
        return call.off()


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
        self._abandoned = False

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
        """Unwind the forward, if it still runs; wherever it is, and as often as one likes.

        An interrupt may have come while it ran on towards its next op: then it is not paused, and
        nobody may wait for its pause any more.
        """
        self._abandoned = True
        if not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # it has been let go already
            self._mine.release()
        self._thread.join()

    def _wait(self) -> Pause:
        self._theirs.acquire()
        pause, self._pause = self._pause, None
        if isinstance(pause, (Finished, Raised)):
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
            with self._instrumented.guard(), mode:
                self._pause = Finished(self._instrumented.call(self._batch))
        except BaseException as error:  # noqa: BLE001 - carried to the driving thread, whatever it is
            self._pause = Raised(error)
        if not self._abandoned:
            self._theirs.release()

    def _execute(self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self._abandoned:
            raise _AbandonedForward
        self._pause = AtOp(op, args, kwargs)
        self._theirs.release()
        self._mine.acquire()
        if self._abandoned:
            raise _AbandonedForward
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        reply, self._reply = self._reply, None
        return reply
