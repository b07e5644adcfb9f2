"""Which module a thread is in: a stack kept by forward hooks on eager modules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from varshift_cli.instrument.noise_modules import NoiseModule, NoiseSwitch, op_noise_modules


class Listener(Protocol):
    """Who is told when a noise module starts and ends: the interception of this thread."""

    def enter_noise(self, noise: NoiseModule) -> None:
        """A noise module is about to run."""

    def leave_noise(self, noise: NoiseModule, output: Any) -> Any:
        """A noise module has run; what is returned replaces its output unless it is ``None``."""

    def enter_lookalike(self, name: str) -> None:
        """A module with running statistics and a forward of its own is about to run."""

    def leave_lookalike(self, name: str, module: nn.Module, x: Any, output: Any) -> Any:
        """It has run on ``x``; what is returned replaces its output unless it is ``None``."""


class ModuleStack:
    """Paths of the modules whose forward is running, one stack per thread.

    Scripted modules take no hooks; inside them the stack simply does not grow.
    """

    def __init__(
        self,
        model: nn.Module,
        noises: Sequence[NoiseModule] = (),
        batch_norms: Collection[str] = (),
    ) -> None:
        self._model = model
        self._local = threading.local()
        self.in_training = False
        """Whether every flag says train, for a probe."""
        self._handles: list[RemovableHandle] = []
        self.switch = NoiseSwitch(noises)
        self.elsewhere: set[str] = set()
        """Modules that ran in a thread in which no calls can be seen."""
        self._modules = {
            path: module
            for path, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }
        self._batch_norms = batch_norms
        self._standing_in: list[RemovableHandle] = []
        self._lookalikes = [
            name
            for name in batch_norms
            if name in self._modules and not _is_torchs(self._modules[name])
        ]

    def install(self) -> None:
        """Hook every eager module."""
        for path, module in self._modules.items():
            self._hook(module, self._enter(path), self._leave)
        # After the others: a noise module is inside itself when it is told of.
        for noise in self.switch.modules.values():
            self._hook(noise.module, self._enter_noise(noise), self._leave_noise(noise))

        for name in self._lookalikes:
            self._hook(
                self._modules[name], self._enter_lookalike(name), self._leave_lookalike(name)
            )

    def hook_norms_and_dropouts(self) -> None:
        """Hook what is otherwise seen as ops: for forwards that cannot run in inference mode."""
        if self._standing_in:
            return
        before = len(self._handles)
        for name in self._batch_norms:
            if name in self._modules and name not in self._lookalikes:
                self._hook(
                    self._modules[name], self._enter_lookalike(name), self._leave_lookalike(name)
                )
        for noise in op_noise_modules(self._modules):
            self.switch.add(noise)
            self._hook(noise.module, self._enter_noise(noise), self._leave_noise(noise))
        self._standing_in = self._handles[before:]

    def unhook_norms_and_dropouts(self) -> None:
        """Take those hooks off again."""
        for handle in self._standing_in:
            handle.remove()
        self._standing_in = []

    def left_in_train(self) -> list[str]:
        """Paths of the outermost modules that a forward put in train mode; "" is the model."""
        switched = {path for path, module in self._modules.items() if module.training}
        return [
            path
            for path in sorted(switched)
            if not any(parent in switched for parent in _parents(path))
        ]

    @property
    def by_hooks(self) -> bool:
        """Whether BN and dropout are seen by hooks rather than as ops."""
        return bool(self._standing_in)

    def remove(self) -> None:
        """Take every hook off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def reset(self, listener: Listener) -> list[str]:
        """Start a forward in this thread with an empty stack, and return that stack."""
        self._local.listener = listener
        self._local.paths = []
        stack: list[str] = self._local.paths
        return stack

    def forget(self) -> None:
        """The forward of this thread is over."""
        self._local.listener = None

    @contextmanager
    def all_in_training(self) -> Iterator[None]:
        """Set every flag but those of normalisations and of known noise, and set them back.

        BN with a flag in train would refuse a single sample, and count batches.
        """
        apart = {id(each.module) for each in self.switch.modules.values()}
        apart |= {id(self._modules[name]) for name in self._lookalikes}
        others = [
            module
            for module in self._model.modules()
            if not isinstance(module, _NormBase) and id(module) not in apart
        ]
        self.in_training = True
        try:
            for module in others:
                module.training = True
            yield
        finally:
            self.in_training = False
            for module in others:
                module.training = False

    def current(self) -> tuple[str, str]:
        """Path and class name of the module that is running in this thread."""
        paths = getattr(self._local, "paths", None)
        path = paths[-1] if paths else ""
        module = self._modules.get(path)
        return path, "" if module is None else type(module).__name__

    def is_noise(self, path: str) -> bool:
        """Whether the module at a path is itself noise rather than one that calls it."""
        module = self._modules.get(path)
        return isinstance(module, (nn.modules.dropout._DropoutNd, nn.RReLU, nn.RNNBase))

    def _hook(self, module: nn.Module, before: Any, after: Any) -> None:
        self._handles.append(module.register_forward_pre_hook(before))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _enter(self, path: str) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _args: Any) -> None:
            paths = getattr(self._local, "paths", None)
            if paths is None:
                self.elsewhere.add(path)
            else:
                paths.append(path)

        return enter

    def _leave(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        paths = getattr(self._local, "paths", None)
        if paths:
            paths.pop()

    def _enter_noise(self, noise: NoiseModule) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _args: Any) -> None:
            listener: Listener | None = getattr(self._local, "listener", None)
            if listener is not None:
                listener.enter_noise(noise)

        return enter

    def _leave_noise(self, noise: NoiseModule) -> Callable[[nn.Module, Any, Any], Any]:
        def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
            listener: Listener | None = getattr(self._local, "listener", None)
            return None if listener is None else listener.leave_noise(noise, output)

        return leave

    def _enter_lookalike(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, _args: Any) -> None:
            listener: Listener | None = getattr(self._local, "listener", None)
            if listener is not None:
                listener.enter_lookalike(name)

        return enter

    def _leave_lookalike(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def leave(module: nn.Module, args: Any, output: Any) -> Any:
            listener: Listener | None = getattr(self._local, "listener", None)
            if listener is None:
                return None
            return listener.leave_lookalike(name, module, args[0] if args else None, output)

        return leave


def _parents(path: str) -> Iterator[str]:
    """``a.b``, ``a`` and the model itself for ``a.b.c``."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _is_torchs(module: nn.Module) -> bool:
    """Whether a module runs a forward of torch's own, which ends in the BN op."""
    forward = type(module).forward
    return getattr(forward, "__module__", "").startswith("torch.nn.modules.")
