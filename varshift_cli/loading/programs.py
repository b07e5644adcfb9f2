"""What a recorded program (traced or exported) cannot tell any more, as far as its graph shows.

A network recorded in eval mode passes through dropouts that return their very input, so the
recorder cannot know which of the two a later op was given: it writes down the dropout's output.
Decomposition then removes such dropouts altogether. Either way eval is recorded rightly; only what
dropout would do in training is lost in part, or whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

DROPOUT_REMOVED = (
    "the program was decomposed (run_decompositions), which takes dropout out of it: what training "
    "saw can no longer be measured. Export it without, or give a state dict and --arch"
)

_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_FLAG = 2
"""Position of the training flag among a dropout's arguments."""


def is_decomposed(model: nn.Module) -> bool:
    """Whether an exported program went through ``run_decompositions``."""
    return any("_native_batch_norm_legit" in _op_name(node) for node in _nodes(model))


def fixed_batch(model: nn.Module) -> int | None:
    """The only batch size that an exported program takes; ``None`` for any size."""
    inputs = [node.meta.get("val") for node in _nodes(model) if node.op == "placeholder"]
    first: list[Any] = [
        value.shape[0] for value in inputs if isinstance(value, torch.Tensor) and value.dim()
    ]
    # A size that may vary is a SymInt, which is no int.
    sizes = {size if isinstance(size, int) else None for size in first}
    return sizes.pop() if len(sizes) == 1 else None


def notes_on(model: nn.Module) -> tuple[str, ...]:
    """What should be said of a program's graph."""
    found = []
    forked = _forked_dropouts(model)
    if forked:
        found.append(
            f"recorded in eval mode, where a dropout returns its very input: whatever used the "
            f"input of {_count(forked)} is recorded as using the output. If a skip connection goes "
            "round such a dropout, stale and dropout are off (E/R and a repair are not): script "
            "the model, or give a state dict and --arch"
        )
    return tuple(found)


def _count(dropouts: int) -> str:
    return (
        "a dropout with several users"
        if dropouts == 1
        else f"{dropouts} dropouts with several users"
    )


def _forked_dropouts(model: nn.Module) -> int:
    """Inactive dropouts whose output goes to more than one op."""
    if isinstance(model, torch.jit.ScriptModule):
        return sum(_is_forked(node) for node in _script_nodes(model))
    return sum(
        _op_name(node) in _DROPOUTS
        and len(node.users) > 1
        and len(node.args) > _FLAG
        and node.args[_FLAG] is False
        for node in _nodes(model)
    )


def _nodes(model: nn.Module) -> Iterator[fx.Node]:
    if isinstance(model, fx.GraphModule):
        yield from model.graph.nodes


def _op_name(node: fx.Node) -> str:
    """``dropout`` for a call of ``aten.dropout.default``; empty for what is no call of an op."""
    parts = str(node.target).split(".")
    return parts[1] if node.op == "call_function" and parts[0] == "aten" else ""


def _script_nodes(model: torch.jit.ScriptModule) -> Iterator[Any]:
    try:
        graph = model.inlined_graph
    except (RuntimeError, AttributeError):  # a container of modules has no forward
        return
    yield from graph.nodes()


def _is_forked(node: Any) -> bool:
    if node.kind().removeprefix("aten::") not in _DROPOUTS:
        return False
    flag = list(node.inputs())[_FLAG].toIValue()
    return flag is False and len(node.output().uses()) > 1
