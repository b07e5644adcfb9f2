"""Arrays of numpy as tensors, and what can be labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def is_array(item: Any) -> bool:
    """Whether this is a tensor or a numpy array of numbers."""
    return isinstance(item, torch.Tensor) or (
        isinstance(item, np.ndarray) and item.dtype.kind in "biufc"
    )


def as_tensor(item: Any) -> Any:
    """A numpy array as a tensor over the same memory; anything else as it is."""
    if isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
        # A read-only or negatively strided array cannot be shared.
        return torch.from_numpy(np.ascontiguousarray(item).copy() if _needs_copy(item) else item)
    return item


def _needs_copy(item: np.ndarray[Any, Any]) -> bool:
    return not item.flags.writeable or any(step < 0 for step in item.strides)


def as_label(item: Any) -> Any:
    """Labels as a tensor, or ``None`` where they are something else (detection targets)."""
    if is_array(item):
        return as_tensor(item)
    if isinstance(item, list | tuple) and item and all(isinstance(n, int | float) for n in item):
        return torch.tensor(item)
    return None
