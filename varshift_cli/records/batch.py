"""One batch of calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One batch as the model is called with it: ``model(*args, **kwargs)``.

    ``args`` and ``kwargs`` hold tensors; ``labels`` is a tensor of shape (size, ...) or ``None``.
    ``size`` is the number of samples: the length of the first tensor.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Any | None
    size: int
