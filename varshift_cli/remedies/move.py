"""Move dropout behind the last BatchNorm, in place (Li et al., CVPR 2019, tables 4 and 5)."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from varshift_cli.errors import UsageError
from varshift_cli.nn import DropoutLinear
from varshift_cli.records import DropoutChange
from varshift_cli.remedies.swap import dropouts_before_batch_norm, put


def move_dropout(
    model: nn.Module, *, p: float | None = None, before: str | None = None
) -> tuple[DropoutChange, ...]:
    """Take dropout away from before the BatchNorm layers and put one before the last linear layer.

    It then reaches no BatchNorm, so that statistics are the same in training and in ``eval()``.
    Train again afterwards. Modules are taken in the order in which they were registered.

    Args:
        model: Changed in place. Parameters, buffers and their names stay as they are.
        p: DROP probability of the new one; by default the largest of those that are moved.
        before: Path of the linear layer; by default the last one behind the last BatchNorm.

    Returns:
        What was changed.

    Raises:
        UsageError: There is nothing to move, or no place to move it to.
    """
    moved = dropouts_before_batch_norm(model)
    if not moved:
        raise UsageError(
            "the model has no dropout module before its last BatchNorm: there is nothing to move",
            hint="Functional calls (F.dropout in forward) can only be moved in the code: varshift "
            "scan gives their file and line.",
        )
    name, linear = _place(model, before)
    strongest = max(float(getattr(each, "p", 0.0)) for each in moved.values())
    p = strongest if p is None else p
    if not 0.0 <= p <= 1.0:
        raise UsageError(f"p must be between 0 and 1, but is {p}")
    changes = [put(model, each, nn.Identity()) for each in moved]
    changes.append(put(model, name, DropoutLinear(linear, p)))
    return tuple(changes)


def _place(model: nn.Module, before: str | None) -> tuple[str, nn.Linear]:
    """The linear layer to put the dropout before."""
    modules = dict(model.named_modules())
    if before is not None:
        found = modules.get(before)
        if not isinstance(found, nn.Linear):
            kind = "no module" if found is None else type(found).__name__
            raise UsageError(f"before={before!r} must be a linear layer, but is {kind}")
        return before, found
    last: tuple[str, nn.Linear] | None = None
    for name, module in modules.items():
        if isinstance(module, _BatchNorm):
            last = None
        elif isinstance(module, nn.Linear) and name:
            last = name, module
    if last is None:
        raise UsageError(
            "no linear layer is registered behind the last BatchNorm, so there is no place for the "
            "dropout",
            hint='Say before="fc", the layer that it shall stand before.',
        )
    return last
