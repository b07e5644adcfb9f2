"""Borrow a model and torch's global state; give both back as they were found."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer
from torch.utils._python_dispatch import _pop_mode

from varshift_cli.interrupts import tidied


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """On every exit restore flags, buffers, attributes, and torch's global state.

    Buffers are compared by content and copied back in place, so that optimisers and aliases stay
    valid; a buffer that a forward replaced by another tensor is put back as the same object.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not isinstance(buffer, UninitializedBuffer)
    ]
    attributes = [_Attributes(module) for module in model.modules() if not _is_scripted(module)]
    depth = torch._C._len_torch_dispatch_stack()

    def restore() -> None:
        # An interrupt may keep our own dispatch mode from taking itself off.
        while torch._C._len_torch_dispatch_stack() > depth:
            _pop_mode()
        for each in attributes:
            each.restore()
        for module, training in flags:
            module.training = training
        for module, name, buffer, value in buffers:
            _restore(module, name, buffer, value)

    with (
        preserved_random_state(),
        _preserved_defaults(),
        _without_attention_fast_path(),
        tidied(restore),
    ):
        yield


def set_training(model: nn.Module, training: bool) -> None:
    """Set every flag without calling an overridden ``train()``."""
    for module in model.modules():
        module.training = training


def _restore(module: nn.Module, name: str, buffer: Tensor, value: Tensor) -> None:
    # By way of items(): the buffers of a ScriptModule are a mapping without get().
    held = dict(module._buffers.items()).get(name)
    scripted = isinstance(module, torch.jit.ScriptModule)
    # A ScriptModule hands out a new object for the same tensor at every look.
    if held is None or (held.data_ptr() != buffer.data_ptr() if scripted else held is not buffer):
        module._buffers[name] = buffer
    # NaN never equals itself, so compare bits by way of equal_nan.
    if not _same(buffer, value):
        with torch.no_grad():
            buffer.copy_(value)


def _same(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if left.is_floating_point():
        return bool(torch.allclose(left, right, rtol=0.0, atol=0.0, equal_nan=True))
    return bool(torch.equal(left, right))


class _Attributes:
    """The plain attributes of a module: what a forward may set, count up or append to.

    Lists, dicts and sets are restored one level deep, in place; what they hold is not looked into.
    """

    __slots__ = ("_empty", "_filled", "_kind", "_module", "_values")

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kind = type(module)
        self._values = dict(vars(module))
        containers = [
            value
            for name, value in self._values.items()
            if name not in _OWN and type(value) in (list, dict, set, OrderedDict)
        ]
        # Most are the hooks that a module does not have.
        self._empty = [value for value in containers if not value]
        self._filled = [(value, value.copy()) for value in containers if value]

    def restore(self) -> None:
        """Put back what changed; hooks and buffers are others' to restore."""
        if type(self._module) is not self._kind:
            self._module.__class__ = self._kind  # a lazy module that our forward initialised
        held = vars(self._module)
        for name in [name for name in held if name not in self._values]:
            del held[name]
        for name, value in self._values.items():
            if held.get(name, _MISSING) is not value:
                held[name] = value
        for container in self._empty:
            if container:
                container.clear()
        for container, was in self._filled:
            if isinstance(container, list):
                container[:] = was
            else:
                container.clear()
                container.update(was)


_MISSING = object()
_OWN = frozenset({"_parameters", "_buffers", "_modules"})


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


@contextmanager
def _preserved_defaults() -> Iterator[None]:
    """Default dtype, grad mode, thread count and determinism, should a forward set them."""
    dtype, grad, threads = (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )
    determinism = _determinism()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if _determinism() != determinism:  # setting it imports torch's compiler: over a second
            torch.use_deterministic_algorithms(determinism[0], warn_only=determinism[1])


def _determinism() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Give back torch's, Python's and numpy's random state on every exit."""
    # The legacy global state is what users seed; no Generator of ours could give it back.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    cpu = torch.get_rng_state()

    def restore() -> None:
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

    with tidied(restore), torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _without_attention_fast_path() -> Iterator[None]:
    # The fused attention path would swallow dropouts and linear layers whole.
    enabled = torch.backends.mha.get_fastpath_enabled()
    with tidied(lambda: torch.backends.mha.set_fastpath_enabled(enabled)):
        torch.backends.mha.set_fastpath_enabled(False)
        yield
