"""Statistics as a file or a model can hold them: rounded to bf16 or fp16 before they are proved.

What is verified must be what is written. A buffer stored as bfloat16 keeps 8 bits of a number, so
that a repair leaves up to 0.4 % of a variance at a layer, and deeper layers inherit it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from varshift_cli.remedies.recalibrate import NewStatistics
from varshift_cli.statistics import Population

_ROUNDINGS = 16
"""Roundings of a variance that a proof may show, of the layer itself and of those above it."""


def as_held(new: NewStatistics, dtypes: Mapping[str, torch.dtype]) -> NewStatistics:
    """The same statistics, each rounded to the dtype that will hold it.

    Args:
        new: What to write.
        dtypes: By name of the BN; float32 for those that are missing.
    """
    return replace(
        new,
        populations={
            name: _rounded(population, dtypes.get(name, torch.float32))
            for name, population in new.populations.items()
        },
    )


def slack(dtypes: Iterable[torch.dtype]) -> float:
    """The relative residual that rounding alone may leave: 16 times half a step of the coarsest."""
    steps = [torch.finfo(dtype).eps / 2.0 for dtype in dtypes if dtype.is_floating_point]
    return _ROUNDINGS * max(steps, default=0.0)


def rounding_notes(dtypes: Mapping[str, torch.dtype]) -> tuple[str, ...]:
    """What should be said of dtypes coarser than float32."""
    coarse = Counter(dtype for dtype in dtypes.values() if dtype.itemsize < torch.float32.itemsize)
    return tuple(
        f"the statistics of {count} layers are held as {str(dtype).removeprefix('torch.')}: "
        "new values rounded to it before they were proved"
        for dtype, count in coarse.items()
    )


def _rounded(population: Population, dtype: torch.dtype) -> Population:
    return replace(
        population,
        mean=population.mean.to(dtype).to(torch.float64),
        var=population.var.to(dtype).to(torch.float64),
    )
