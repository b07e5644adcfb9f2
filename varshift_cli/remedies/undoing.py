"""Running buffers as they were: after an error, or after new ones were only tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.interrupts import held_interrupts
from varshift_cli.remedies.recalibrate import write_statistics
from varshift_cli.statistics import Population


@contextmanager
def buffers_restored_on_error(catalogue: BatchNormCatalogue) -> Iterator[None]:
    """Put all running statistics back, bit for bit, if the block raises."""
    saved = _save_buffers(catalogue)
    try:
        yield
    except BaseException:
        with held_interrupts():
            _put_back(saved)
        raise


@contextmanager
def tried(catalogue: BatchNormCatalogue, populations: Mapping[str, Population]) -> Iterator[None]:
    """Statistics in place for the length of a block, the old ones back afterwards."""
    saved = _save_buffers(catalogue)
    try:
        write_statistics(catalogue, populations)
        yield
    finally:
        _put_back(saved)


def _save_buffers(catalogue: BatchNormCatalogue) -> list[tuple[Tensor, Tensor]]:
    """Every running buffer, with a copy of its values."""
    return [
        (buffer, buffer.detach().clone())
        for site in catalogue.sites.values()
        for buffer in (site.running_mean, site.running_var)
    ]


def _put_back(saved: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Undo what happened to buffers since :func:`_save_buffers`."""
    with torch.no_grad():
        for buffer, value in saved:
            buffer.copy_(value)
