"""Borrow a model and torch's global state; give both back as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """On every exit restore flags, buffers, random state and the attention fast path.

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
    with preserved_random_state(), _without_attention_fast_path():
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training
            for module, name, buffer, value in buffers:
                _restore(module, name, buffer, value)


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


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Give back torch's, Python's and numpy's random state on every exit."""
    # The legacy global state is what users seed; no Generator of ours could give it back.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def _without_attention_fast_path() -> Iterator[None]:
    # The fused attention path would swallow dropouts and linear layers whole.
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
