"""One dispatch mode that sees every BatchNorm (BN) and dropout call, whatever the model is.

Under ``torch.inference_mode()`` the aten ops arrive undecomposed, also when their training flag
is off, alike for eager, functional, scripted and exported models. No module flag and no buffer is
touched: the op is carried out with other arguments.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from varshift_cli.instrument.calls import (
    BatchNormCall,
    Execute,
    ModuleNoiseCall,
    Regime,
    run_here,
)
from varshift_cli.instrument.catalogue import SitesByStorage
from varshift_cli.instrument.draws import RANDOM_OPS, SEEDED_OPS, draw
from varshift_cli.instrument.modules import ModuleStack
from varshift_cli.instrument.noise_modules import NoiseModule, python_generators_seeded
from varshift_cli.instrument.noise_ops import NOISE_OPS, noise_call
from varshift_cli.instrument.sites import BatchNormKey, BatchNormSite, NoiseKey

aten = torch.ops.aten


@dataclass(slots=True, eq=False)
class _OpenNoise:
    """A noise module that is running."""

    call: ModuleNoiseCall
    generators: Iterator[None] | None
    """Of Python and numpy, seeded while the noise is on."""


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
        sites: SitesByStorage,
        stack: ModuleStack,
        batch: int,
        execute: Execute = run_here,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._regime = regime
        self._sites = sites
        self._stack = stack
        self._paths = stack.reset(self)
        self._batch = batch
        self._execute = execute
        self._bn_calls: Counter[str] = Counter()
        self._noise_calls: Counter[str] = Counter()
        self._functional: Counter[tuple[str, int, str]] = Counter()
        self._open: list[_OpenNoise] = []
        self._lookalikes: list[tuple[str, int]] = []

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """One that the compiler passes over, where the process has a compiler."""
        kind = _BesideCompiler if "torch._dynamo" in sys.modules else cls
        return super().__new__(cast("type[Self]", kind))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: only to be passed over by the compiler, torch would import it: over a second."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Route one op."""
        route = _ROUTES.get(func)
        if route is None:
            return self._execute(func, args, kwargs or {})
        return route(self, func, args, kwargs or {})

    def __exit__(self, *exc: object) -> Any:
        """Also close noise modules that were left by an exception no hook is told of."""
        while self._open:
            self._close()
        self._stack.forget()
        return super().__exit__(*exc)  # type: ignore[no-untyped-call]

    def enter_noise(self, noise: NoiseModule) -> None:
        """Ask the regime whether a noise module is to be on, and set its flag."""
        call = ModuleNoiseCall(self._next_key(noise.name), noise.kind, None, noise.p, False)
        call.order = self._noise_calls.total()
        generators = None
        with _disable_current_modes():
            self._regime.noise(call, self._batch)
            if call.drawn_from is not None:
                self._stack.switch.on(noise.name)
                generators = python_generators_seeded(call.drawn_from)
                next(generators)
        self._open.append(_OpenNoise(call, generators))

    def leave_noise(self, noise: NoiseModule, output: Any) -> Any:
        """Set the flag back."""
        if not self._open or self._open[-1].call.key.name != noise.name:
            return None  # its end was told of before
        call = self._close()
        return None if call.then is None else call.then(output)

    def _close(self) -> ModuleNoiseCall:
        opened = self._open.pop()
        if opened.generators is not None:
            next(opened.generators, None)
            self._stack.switch.off(opened.call.key.name)
        return opened.call

    def enter_lookalike(self, name: str) -> None:
        """A module with running statistics and a forward of its own is about to run."""
        self._lookalikes.append((name, self._bn_calls[name]))

    def leave_lookalike(self, name: str, module: nn.Module, x: Any, output: Any) -> Any:
        """If no BN op was seen in it, it is arithmetic: answer it here."""
        if not self._lookalikes or self._lookalikes[-1][0] != name:
            return None
        calls = self._lookalikes.pop()[1]
        site = self._sites.named(name)
        if self._bn_calls[name] > calls or not (_fits(x, site) and _fits(output, site)):
            return None
        self._bn_calls[name] += 1
        call = BatchNormCall(
            BatchNormKey(name, self._bn_calls[name]),
            site,
            x,
            getattr(module, "weight", None),
            getattr(module, "bias", None),
            training=False,
            eps=float(getattr(module, "eps", 1e-5)),
            module_output=output,
            by_hook=self._stack.by_hooks,
        )
        # A hook runs with this mode on, which must not see what is done to answer it.
        with _disable_current_modes(), torch.no_grad():
            if not call.by_hook and self._sites.is_opaque(call):
                call = replace(call, opaque=True)
            answer = self._execute(self._regime.batch_norm, (call, self._batch), {})
        if not call.by_hook or answer is output:
            return answer
        # Statistics: normalise here, so that a gradient finds its way through.
        with _disable_current_modes():
            return replace(call, by_hook=False).normalise(*answer)

    def _on_batch_norm(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = self._batch_norm_call(args)
        if call is None:
            return self._execute(func, args, kwargs)
        return self._execute(self._regime.batch_norm, (call, self._batch), {})

    def _on_decomposed_batch_norm(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        x, weight, bias, mean, var, momentum, eps = args
        call = self._batch_norm_call((x, weight, bias, mean, var, False, momentum, eps, True))
        if call is None:
            return self._execute(func, args, kwargs)
        output = self._execute(self._regime.batch_norm, (call, self._batch), {})
        return output, x.new_empty(0), x.new_empty(0)

    def _batch_norm_call(self, args: tuple[Any, ...]) -> BatchNormCall | None:
        x, weight, bias, running_mean, running_var, training, _, eps, _ = args
        path = self._paths[-1] if self._paths else ""
        if running_mean is None or running_var is None:
            self._sites.meet_untracked(path)
            return None
        site = self._sites.get(running_mean.data_ptr())
        if site is None:
            site = self._sites.meet(
                running_mean,
                running_var,
                path,
                lambda: self._functional_order(path, "batch_norm"),
            )
        self._bn_calls[site.name] += 1
        key = BatchNormKey(site.name, self._bn_calls[site.name])
        return BatchNormCall(key, site, x, weight, bias, training, eps)

    def _on_noise(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._in_noise_module():
            return self._on_noise_inside(func, args, kwargs)
        call = noise_call(func, args, kwargs, self._noise_key)
        if call is None:
            return self._execute(func, args, kwargs)
        call.order = self._noise_calls.total()
        return self._execute(self._regime.noise, (call, self._batch), {})

    def _on_noise_inside(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A noise op that is part of a noise module: no site of its own."""
        outer = self._open[-1].call
        call = noise_call(func, args, kwargs, lambda _name: outer.key)
        if call is None or not call.training:
            if call is not None and outer.p is None:
                outer.p = call.p
            return self._execute(func, args, kwargs)
        if outer.drawn_from is None:
            # On, although the module's flag says off.
            call.key = self._next_key(outer.key.name)
            call.order = self._noise_calls.total()
            return self._execute(self._regime.noise, (call, self._batch), {})
        return self._execute(call.draw_from, (outer.drawn_from,), {})

    def _in_noise_module(self) -> bool:
        """Whether the innermost module is a noise module itself."""
        return (
            bool(self._open)
            and bool(self._paths)
            and self._open[-1].call.key.name == self._paths[-1]
        )

    def _on_random(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        source = self._open[-1].call.drawn_from if self._open else None
        if source is None:
            return self._execute(func, args, kwargs)
        return self._execute(draw, (func, args, kwargs, source), {})

    def _noise_key(self, functional_name: str) -> NoiseKey:
        """The key of the noise op at hand, by its module or its order within the caller."""
        path = self._paths[-1] if self._paths else ""
        if self._stack.is_noise(path):
            return self._next_key(path)
        order = self._functional_order(path, functional_name)
        return self._next_key(f"{path}.{functional_name}#{order}".lstrip("."))

    def _functional_order(self, path: str, name: str) -> int:
        """A functional call is named by its order within this run of its owner."""
        depth = len(self._paths)
        for key in [key for key in self._functional if key[1] > depth]:
            del self._functional[key]
        self._functional[path, depth, name] += 1
        return self._functional[path, depth, name]

    def _next_key(self, name: str) -> NoiseKey:
        self._noise_calls[name] += 1
        return NoiseKey(name, self._noise_calls[name])


class _BesideCompiler(Interception):  # type: ignore[no-untyped-call]
    """The same, not to be compiled itself while parts of the model are."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Yes; the compiler is loaded already."""
        return True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Route one op."""
        return super().__torch_dispatch__(func, types, args, kwargs)


def _fits(value: Any, site: BatchNormSite) -> bool:
    """Whether a tensor has the channels of a BN, in the second dimension."""
    return isinstance(value, Tensor) and value.dim() >= 2 and value.shape[1] == site.num_features


_Route = Callable[[Interception, Any, tuple[Any, ...], Mapping[str, Any]], Any]
_ROUTES: dict[Any, _Route] = {
    **dict.fromkeys((*RANDOM_OPS, *SEEDED_OPS), Interception._on_random),
    **dict.fromkeys(NOISE_OPS, Interception._on_noise),
    aten.batch_norm.default: Interception._on_batch_norm,
    # What is left of a BN in eval mode after ExportedProgram.run_decompositions.
    aten._native_batch_norm_legit_no_training.default: Interception._on_decomposed_batch_norm,
}
"""Every op that is not simply carried out."""
