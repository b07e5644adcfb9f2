"""Turn an error of the model's own into one that says in which layer and on which batch."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from varshift_cli.errors import ForwardError, VarshiftError, is_out_of_memory
from varshift_cli.instrument.locations import is_library, shown_path
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.records import Batch


@contextmanager
def told_forward_errors(model: nn.Module, batches: Sequence[Batch]) -> Iterator[None]:
    """Passes over batches whose errors say in which layer and on which batch.

    Raises:
        ForwardError: The model's forward raised.
    """
    try:
        yield
    except ForwardRaised as raised:
        batch = batches[raised.batch]
        raise _told(model, raised.error, raised.batch, batch) from raised.error


def _told(model: nn.Module, error: BaseException, index: int, batch: Batch) -> Exception:
    """Describe what the forward raised; an error of varshift's own is passed on as it is."""
    if isinstance(error, VarshiftError):
        return error
    layer = _layer(model, error.__traceback__)
    place = _place(error.__traceback__)
    where = f" in layer '{layer}'" if layer else ""
    line = f" ({place})" if place else ""
    if is_out_of_memory(error):
        return ForwardError(
            f"out of memory in the model's forward{where}{line} on batch {index}",
            hint=f"The batch was {_shapes(batch)}. A smaller --batch-size or fewer --samples need "
            "less; so does --device cpu where a GPU ran out.",
        )
    first = str(error).strip().splitlines() or [""]
    return ForwardError(
        f"the model's forward raised {type(error).__name__}{where}{line} on batch {index}: "
        f"{first[0]}",
        hint=f"The batch was {_shapes(batch)}. Check shape and dtype of the data, or give "
        "--forward (in Python forward=) a function that calls the model in its own way.",
    )


def _layer(model: nn.Module, trace: TracebackType | None) -> str | None:
    """Path of the innermost module whose method was running."""
    names = {id(module): name for name, module in model.named_modules()}
    innermost = None
    while trace is not None:
        owner = names.get(id(trace.tb_frame.f_locals.get("self")))
        innermost = owner or innermost
        trace = trace.tb_next
    return innermost


def _place(trace: TracebackType | None) -> str | None:
    """``file:line`` of the innermost frame of the user's own."""
    frames = [frame for frame in traceback.extract_tb(trace) if not is_library(frame.filename)]
    return f"{shown_path(frames[-1].filename)}:{frames[-1].lineno}" if frames else None


def _shapes(batch: Batch) -> str:
    leaves: list[Any] = tree_leaves((batch.args, dict(batch.kwargs)))
    shapes = [
        f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}"
        for leaf in leaves
        if hasattr(leaf, "shape")
    ]
    return ", ".join(shapes) or "empty"
