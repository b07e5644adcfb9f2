"""Draw batches from whatever a training script has, without a trace in its random numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from varshift_cli.instrument.snapshot import preserved_random_state
from varshift_cli.loading import adapt_batches
from varshift_cli.measurement import check_batches
from varshift_cli.records import Batch


def draw_batches(
    model: nn.Module, batches: Iterable[Any], *, samples: int | None = None
) -> tuple[Batch, ...]:
    """The batches, drawn once and kept; :func:`scan` takes them as they are.

    A loader that shuffles draws from the global random state; that is given back, so that a
    training goes on as it would have without the scan.

    Args:
        model: Its ``forward`` tells how dict batches are spread.
        batches: A DataLoader, or any iterable of batches: tensors whose first dimension counts
            samples, (input, label) tuples, or dicts of keyword arguments.
        samples: No more than this many; all by default.

    Raises:
        DataError: Fewer than two samples, non-finite input, or batches of no known form.
    """
    with preserved_random_state():
        drawn = adapt_batches(batches, model, what="batches", samples=samples)
    check_batches(drawn)
    return drawn
