"""What a regime is asked about: one BatchNorm (BN) call or one noise call on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from varshift_cli.instrument import noise
from varshift_cli.instrument.draws import Source
from varshift_cli.instrument.sites import BatchNormKey, BatchNormSite, NoiseKey

Op = Callable[..., Any]
Execute = Callable[[Op, Sequence[Any], Mapping[str, Any]], Any]
"""Carries out an op, here or in another thread."""


_HALF = (torch.float16, torch.bfloat16)


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
    module_output: Tensor | None = None
    """What the module returned, where it is no op but arithmetic."""
    by_hook: bool = False
    """The module is answered by a hook, which normalises itself, under its own grad mode."""
    opaque: bool = False
    """That arithmetic is not BN's: it can be measured, but not normalised otherwise."""

    def as_written(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics, each of shape (C,), on the device and in the dtype of the buffers."""
        return mean.to(self.site.running_mean), var.to(self.site.running_var)

    def normalise(self, mean: Tensor, var: Tensor) -> Tensor:
        """BN's output with statistics as :meth:`as_written`, each of shape (C,)."""
        if self.opaque and self.module_output is not None:
            return self.module_output
        if self.by_hook:
            return torch.stack([mean, var])
        return self._normalised(mean, var)

    def _normalised(self, mean: Tensor, var: Tensor) -> Tensor:
        if mean.dtype in _HALF and self.input.dtype not in _HALF:
            mean, var = mean.float(), var.float()  # the op takes no coarser statistics than input
        weight, bias = self.weight, self.bias
        if weight is not None and weight.dtype != mean.dtype:
            weight = weight.to(mean.dtype)
            bias = None if bias is None else bias.to(mean.dtype)
        return torch.batch_norm(
            self.input, weight, bias, mean, var, False, 0.0, self.eps, torch.backends.cudnn.enabled
        )

    def as_deployed(self) -> Tensor:
        """BN's output by its own running buffers."""
        if self.module_output is not None:
            return self.module_output
        return self._normalised(self.site.running_mean, self.site.running_var)

    def is_batch_norm(self) -> bool:
        """Whether the module's arithmetic is BN's, by its own running buffers."""
        assert self.module_output is not None
        expected = self._normalised(self.site.running_mean, self.site.running_var)
        scale = float(expected.abs().max().clamp(min=1e-6)) if expected.numel() else 1.0
        return torch.allclose(self.module_output, expected, rtol=1e-3, atol=1e-4 * scale)


def normalise_by_batch(call: BatchNormCall) -> Tensor:
    """What a BN that is asked for batch statistics returns, its buffers left alone."""
    return torch.batch_norm(
        call.input, call.weight, call.bias, None, None, True, 0.0, call.eps,
        torch.backends.cudnn.enabled,
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class NoiseCall:
    """One noise call on its way; the base of all kinds.

    A regime answers it by :meth:`off` or :meth:`apply`, once.

    Attributes:
        key: Its site, and which call of it.
        kind: Its name is reported.
        input: What enters it; ``None`` for noise that is a module.
        p: DROP probability; ``None`` where the noise has none, or none that can be read.
        order: Counts the noise calls of a forward from 1. Draws are seeded by it rather than by
            the name: an eager, a scripted and an exported model agree on the order, not on names.
        training: The flag the model passed: True under ``eval()`` is noise that ignores it.
        mixes: Whether units are mixed behind the noise, within the call: case b then.
    """

    key: NoiseKey
    kind: noise.NoiseKind
    input: Any
    p: float | None
    training: bool
    mixes: bool = field(default=False, kw_only=True)
    order: int = field(default=0, kw_only=True)

    @property
    def silent(self) -> bool:
        """Whether it does nothing even when it is on."""
        return self.p == 0.0

    def off(self) -> Any:
        """The output with the noise off."""
        return self.input

    def apply(self, seed: int, samples: Tensor) -> Any:
        """The output with the noise on, drawn from (seed, sample, order of the call)."""
        return self.draw_from(self.source(seed, samples))

    def draw_from(self, source: Source) -> Any:
        """The output with the noise on."""
        raise NotImplementedError

    def source(self, seed: int, samples: Tensor) -> Source:
        """Where the draws of this call come from."""
        return Source(seed, self.order, samples)


@dataclass(slots=True, eq=False)
class DropoutCall(NoiseCall):
    """One of torch's dropout ops."""

    in_place: bool = False

    def apply(self, seed: int, samples: Tensor) -> Tensor:
        """The output with dropout on; in place where the op is."""
        return self._apply(samples, noise.site_key(seed, "mask", self.order))

    def draw_from(self, source: Source) -> Tensor:
        """The same within a noise module."""
        return self._apply(source.samples, source.next_site())

    def _apply(self, samples: Tensor, site: int) -> Tensor:
        assert self.p is not None
        output = noise.apply_noise(self.kind, self.input, self.p, samples, site)
        result: Tensor = self.input.copy_(output) if self.in_place else output
        return result


@dataclass(slots=True, eq=False)
class OpNoiseCall(NoiseCall):
    """Any other op with noise inside.

    Attributes:
        run_off: The op with its noise off.
        run_on: The op with its noise on, drawing from a source.
    """

    run_off: Callable[[], Any]
    run_on: Callable[[Source], Any]

    def off(self) -> Any:
        """The op with its noise off; what that is, the op says."""
        return self.run_off()

    def draw_from(self, source: Source) -> Any:
        """The op with its noise on."""
        return self.run_on(source)


@dataclass(slots=True, eq=False)
class ModuleNoiseCall(NoiseCall):
    """A noise module about to run: what is answered decides its ``training`` flag.

    Attributes:
        drawn_from: Set when the noise is to be on.
        then: May be set to look at the module's output, and replace it.
    """

    drawn_from: Source | None = None
    then: Callable[[Any], Any] | None = None

    def draw_from(self, source: Source) -> Any:
        """Switch the module on for this call."""
        self.drawn_from = source
        return self.input


class Regime(Protocol):
    """What becomes of the calls that the interception sees."""

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Return BN's output."""

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Return the noise's output: ``call.off()`` or ``call.apply(...)``."""


def run_here(op: Op, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry out an op in the thread that met it."""
    return op(*args, **kwargs)
