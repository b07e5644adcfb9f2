"""One dispatch mode that sees every BatchNorm (BN) and dropout call, whatever the model is.

Under ``torch.inference_mode()`` the aten ops arrive undecomposed, also when their training flag
is off, alike for eager, functional, scripted and exported models. No module flag and no buffer is
touched: the op is carried out with other arguments.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from varshift_cli.instrument import noise
from varshift_cli.instrument.modules import ModuleStack
from varshift_cli.instrument.sites import BatchNormKey, BatchNormSite, NoiseKey

aten = torch.ops.aten

Op = Callable[..., Any]
Execute = Callable[[Op, Sequence[Any], Mapping[str, Any]], Any]

_NOISE_OPS: dict[Any, noise.NoiseKind] = {
    aten.dropout.default: noise.DROPOUT,
    aten.dropout_.default: noise.DROPOUT,
    aten.feature_dropout.default: noise.FEATURE_DROPOUT,
    aten.feature_dropout_.default: noise.FEATURE_DROPOUT,
    aten.alpha_dropout.default: noise.ALPHA_DROPOUT,
    aten.alpha_dropout_.default: noise.ALPHA_DROPOUT,
    aten.feature_alpha_dropout.default: noise.FEATURE_ALPHA_DROPOUT,
    aten.feature_alpha_dropout_.default: noise.FEATURE_ALPHA_DROPOUT,
}
_IN_PLACE_NOISE = {op for op in _NOISE_OPS if op._schema.name.endswith("_")}
_BATCH_NORM = aten.batch_norm.default
_DECOMPOSED_BATCH_NORM = aten._native_batch_norm_legit_no_training.default
"""What is left of a BN in eval mode after ``ExportedProgram.run_decompositions``."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormCall:
    """One BN call on its way: its site, and the op's arguments."""

    key: BatchNormKey
    site: BatchNormSite
    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    """The flag the model passed: True under ``eval()`` means batch statistics in deployment."""
    eps: float

    def normalise(self, mean: Tensor, var: Tensor) -> Tensor:
        """BN's output with the given statistics, each of shape (C,)."""
        weight, bias = self.weight, self.bias
        if weight is not None and weight.dtype != mean.dtype:
            weight = weight.to(mean.dtype)
            bias = None if bias is None else bias.to(mean.dtype)
        return torch.batch_norm(
            self.input, weight, bias, mean, var, False, 0.0, self.eps, torch.backends.cudnn.enabled
        )

    def as_deployed(self) -> Tensor:
        """BN's output by its own running buffers."""
        return self.normalise(self.site.running_mean, self.site.running_var)


def normalise_by_batch(call: BatchNormCall) -> Tensor:
    """What a BN that is asked for batch statistics returns, its buffers left alone."""
    return torch.batch_norm(
        call.input, call.weight, call.bias, None, None, True, 0.0, call.eps,
        torch.backends.cudnn.enabled,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class NoiseCall:
    """One dropout call on its way."""

    key: NoiseKey
    kind: noise.NoiseKind
    input: Tensor
    p: float
    training: bool
    """The flag the model passed: True under ``eval()`` is noise that ignores ``eval()``."""
    in_place: bool
    order: int
    """Counts the dropout calls of a forward from 1. Masks are seeded by it rather than by the
    name: an eager, a scripted and an exported model agree on the order, not on names."""

    def apply(self, seed: int, samples: Tensor) -> Tensor:
        """The output with dropout on; in place where the op is."""
        site = noise.site_key(seed, "mask", self.order)
        output = noise.apply_noise(self.kind, self.input, self.p, samples, site)
        return self.input.copy_(output) if self.in_place else output


class Regime(Protocol):
    """What becomes of the calls that the interception sees."""

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Return BN's output."""

    def noise(self, call: NoiseCall, batch: int) -> Tensor:
        """Return the dropout's output."""


def run_here(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry out an op in the thread that met it."""
    return op(*args, **kwargs)


class Interception(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Routes the BN and dropout calls of one forward to a regime.

    Args:
        regime: Decides what each call returns.
        sites: BN sites by the address of their ``running_mean``.
        stack: Names the module that a dropout call sits in.
        batch: Which batch this forward is of.
        execute: Carries out an op, here or in another thread.
    """

    def __init__(
        self,
        regime: Regime,
        sites: Mapping[int, BatchNormSite],
        stack: ModuleStack,
        batch: int,
        execute: Execute = run_here,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._regime = regime
        self._sites = sites
        self._stack = stack
        self._paths = stack.reset()
        self._batch = batch
        self._execute = execute
        self._bn_calls: Counter[str] = Counter()
        self._noise_calls: Counter[str] = Counter()
        self._functional: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Route one op."""
        if func is _BATCH_NORM:
            call = self._batch_norm_call(args)
            if call is not None:
                return self._execute(self._regime.batch_norm, (call, self._batch), {})
        elif func is _DECOMPOSED_BATCH_NORM:
            x, weight, bias, mean, var, momentum, eps = args
            call = self._batch_norm_call((x, weight, bias, mean, var, False, momentum, eps, True))
            if call is not None:
                output = self._execute(self._regime.batch_norm, (call, self._batch), {})
                return output, x.new_empty(0), x.new_empty(0)
        elif func in _NOISE_OPS:
            return self._execute(
                self._regime.noise, (self._noise_call(func, args, kwargs or {}), self._batch), {}
            )
        return self._execute(func, args, kwargs or {})

    def _batch_norm_call(self, args: tuple[Any, ...]) -> BatchNormCall | None:
        x, weight, bias, running_mean, _, training, _, eps, _ = args
        site = None if running_mean is None else self._sites.get(running_mean.data_ptr())
        if site is None:
            return None
        self._bn_calls[site.name] += 1
        key = BatchNormKey(site.name, self._bn_calls[site.name])
        return BatchNormCall(key, site, x, weight, bias, training, eps)

    def _noise_call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoiseCall:
        x, p, training = (
            kwargs[name] if index >= len(args) else args[index]
            for index, name in enumerate(("input", "p", "train"))
        )
        name = self._noise_name()
        self._noise_calls[name] += 1
        return NoiseCall(
            NoiseKey(name, self._noise_calls[name]),
            _NOISE_OPS[func],
            x,
            float(p),
            bool(training),
            func in _IN_PLACE_NOISE,
            self._noise_calls.total(),
        )

    def _noise_name(self) -> str:
        path = self._paths[-1] if self._paths else ""
        if self._stack.is_dropout(path):
            return path
        # A functional call is named by its order within this run of its owner.
        depth = len(self._paths)
        for key in [key for key in self._functional if key[1] > depth]:
            del self._functional[key]
        self._functional[path, depth] += 1
        return f"{path}.dropout#{self._functional[path, depth]}".lstrip(".")


_LIBRARY = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parent.parent}{os.sep}")


_OUTERMOST = str(Path(__file__).with_name("borrow.py"))


def is_library(file: str) -> bool:
    """Whether a source file is torch's or ours rather than the user's."""
    return file.startswith((*_LIBRARY, "<"))


def caller_location() -> str | None:
    """``file:line`` of the innermost frame of the model's that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    # Beyond our own call of the model lies whoever called us, a script or the command line.
    while frame is not None and frame.f_code.co_filename != _OUTERMOST:
        if not is_library(frame.f_code.co_filename):
            return f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def shown_path(file: str) -> str:
    """Relative to the current directory when inside it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
