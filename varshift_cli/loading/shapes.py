"""What a file's weights tell about the input that the model wants, for those who gave no data."""

from __future__ import annotations

from varshift_cli.loading.containers import StateDict
from varshift_cli.loading.containers.checkpoint import LazyTensors

_INPUTS = {
    2: "(samples, {}), or embeddings of that size",
    3: "(samples, {}, length)",
    4: "(samples, {}, height, width)",
    5: "(samples, {}, depth, height, width)",
}
"""Dimensions of the first weight -> what goes in; a convolution's second size is its channels."""


def likely_input(state: StateDict) -> str | None:
    """A sentence on the first weight and what seems to go into it; ``None`` without a clue.

    Only shapes are looked at, no tensor is read.
    """
    if not isinstance(state.tensors, LazyTensors):
        return None
    for name, ref in state.tensors.refs.items():
        if (
            len(ref.shape) in _INPUTS
            and ref.dtype.is_floating_point
            and "embed" not in name.lower()
        ):
            inside = _INPUTS[len(ref.shape)].format(ref.shape[1])
            return f"Its first weights, {name} {ref.shape}, seem to take {inside}."
    return None
