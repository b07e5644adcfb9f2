"""Take a model into the workshop, and hand it back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from varshift_cli.errors import UsageError
from varshift_cli.instrument.catalogue import BatchNormCatalogue
from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.modules import ModuleStack
from varshift_cli.instrument.snapshot import preserved, set_training
from varshift_cli.records import Batch
from varshift_cli.records.fields import closed

UserForward = Callable[[nn.Module, Any], Any]
"""A user's own way of calling the model: ``(model, batch) -> outputs``."""
Forward = Callable[[nn.Module, Batch], Any]
"""The same, on batches of ours."""


def on_whole_batches(forward: UserForward) -> Forward:
    """The user's way, on batches that hold the loader's own as their only argument."""
    return lambda model, batch: forward(model, closed(batch.args[0]))


@contextmanager
def borrowed(
    model: nn.Module, catalogue: BatchNormCatalogue, forward: Forward | None = None
) -> Iterator[Instrumented]:
    """Put every flag in eval, hook every module; undo both, and all else, on every exit."""
    refuse_several_devices(model)
    stack = ModuleStack(model, catalogue.noises, catalogue.sites)
    device = device_of(model)

    def call(batch: Batch) -> Any:
        moved = to_device(batch, device)
        # Here, since it holds for a thread: TorchScript's fuser would swallow BN whole.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return model(*moved.args, **moved.kwargs) if forward is None else forward(model, moved)

    with preserved(model):
        _forget_fused_plans(model)
        set_training(model, False)
        try:
            stack.install()
            yield Instrumented(call, catalogue.by_storage(), stack, catalogue.autograd)
        finally:
            stack.remove()
            catalogue.elsewhere.update(stack.elsewhere)


def _forget_fused_plans(model: nn.Module) -> None:
    """A TorchScript module that has been run keeps its fused plan; it will make a new one."""
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) and module._c._has_method("forward"):
            module._c._get_method("forward")._debug_flush_compilation_cache()


def refuse_several_devices(model: nn.Module) -> None:
    """A model whose parts lie on several devices, or nowhere (meta), cannot be measured.

    Raises:
        UsageError: Names a tensor on each device.
    """
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) < 2 and torch.device("meta") not in devices:
        return
    where: dict[str, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        where.setdefault(str(tensor.device), name)
    if "meta" in where:
        raise UsageError(
            f"'{where['meta']}' is on the meta device: it has a shape but no values",
            hint="Load the weights first, or build the model on the CPU.",
        )
    if len(where) > 1:
        places = ", ".join(f"'{name}' on {device}" for device, name in where.items())
        raise UsageError(
            f"the model is spread over {len(where)} devices: {places}",
            hint="Move it to one, model.to('cpu') or model.to('cuda'), and scan again.",
        )


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lives; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A copy of the batch with every tensor on a device, which a forward may do with as it likes.

    A forward that works on its input in place would change it for every later pass; and a tensor
    that was made outside inference mode cannot be chunked inside it under a dispatch mode.
    """
    args, kwargs = tree_map(
        lambda leaf: _copied(leaf, device) if isinstance(leaf, torch.Tensor) else leaf,
        (batch.args, dict(batch.kwargs)),
    )
    return replace(batch, args=args, kwargs=kwargs)


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.clone() if tensor.device == device else tensor.to(device)
