"""Take a model into the workshop, and hand it back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.modules import ModuleStack
from varshift_cli.instrument.sites import BatchNormCatalogue
from varshift_cli.instrument.snapshot import preserved, set_training
from varshift_cli.records import Batch

Forward = Callable[[nn.Module, Batch], Any]
"""A user's own way of calling the model."""


@contextmanager
def borrowed(
    model: nn.Module, catalogue: BatchNormCatalogue, forward: Forward | None = None
) -> Iterator[Instrumented]:
    """Put every flag in eval, hook every module; undo both, and all else, on every exit."""
    stack = ModuleStack(model, catalogue.noises)
    device = device_of(model)

    def call(batch: Batch) -> Any:
        moved = to_device(batch, device)
        return model(*moved.args, **moved.kwargs) if forward is None else forward(model, moved)

    with preserved(model):
        set_training(model, False)
        try:
            stack.install()
            yield Instrumented(call, catalogue.by_storage(), stack)
        finally:
            stack.remove()


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lives; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on a device; itself when it is there already."""
    if device.type == "cpu":
        return batch
    args, kwargs = tree_map(
        lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf,
        (batch.args, dict(batch.kwargs)),
    )
    return Batch(args, kwargs, batch.labels, batch.size)
