r"""Correct: take out of the running buffers what dropout put in, and nothing else.

With T and C the population statistics of the same batches with dropout on and off, in float64,
for every BatchNorm that a dropout reaches, through other BatchNorm too:

    running_var'  = (running_var + eps) (C + eps)/(T + eps) - eps,   at least 0
    running_mean' = running_mean + (mean_C - mean_T) sqrt((running_var + eps)/(T + eps))

The calibration data enter by a ratio and a difference alone, so they need not look like the
training data (no augmentation), a few samples do, and without dropout nothing changes, to the
bit. It relies on buffers gathered with dropout on: **once only**. It cannot make good what is
wrong for another reason (pruned or averaged weights): recalibrate can.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from varshift_cli.errors import FixDeclinedError
from varshift_cli.instrument import BatchNormCatalogue, BatchNormSite
from varshift_cli.records import Skipped
from varshift_cli.remedies.populations import Populations
from varshift_cli.remedies.recalibrate import NewStatistics, check_finite_statistics
from varshift_cli.statistics import Population

UNREACHED = "no dropout reaches it"
_TRACE = 1e-4
"""|ln T/C| from which a layer counts as moved although the wiring shows no dropout above it: noise
that is no op of its own leaves no trace there. Rounding on a device stays far below."""


def corrected(found: Populations, catalogue: BatchNormCatalogue) -> NewStatistics:
    """What correction writes, from populations that were gathered with dropout on and off.

    Layers that dropout does not move are left out, with the reason.

    Raises:
        FixDeclinedError: Buffers or statistics are not finite.
    """
    assert found.train is not None
    populations: dict[str, Population] = {}
    untouched: list[Skipped] = []
    for name, clean in found.clean.items():
        train, eps = found.train[name], found.eps[name]
        if not _moved(clean, train, eps, reached=name in found.reached):
            untouched.append(Skipped(name, UNREACHED))
            continue
        site = catalogue.sites[name]
        _check_running(site)
        populations[name] = _difference(site, clean, train, eps)
    check_finite_statistics(populations)
    selection = replace(
        found.selection,
        names=tuple(populations),
        skipped=(*found.selection.skipped, *untouched),
    )
    return NewStatistics(populations, selection, found.procedure)


def _moved(clean: Population, train: Population, eps: float, *, reached: bool) -> bool:
    """Whether switching dropout off changes anything here."""
    if torch.equal(clean.var, train.var) and torch.equal(clean.mean, train.mean):
        return False
    return reached or float(((train.var + eps) / (clean.var + eps)).log().abs().max()) > _TRACE


def _difference(
    site: BatchNormSite, clean: Population, train: Population, eps: float
) -> Population:
    running_mean, running_var = site.held_mean, site.held_var
    ratio = (clean.var + eps) / (train.var + eps)
    # As running_var * ratio + eps * (ratio - 1), so that a ratio of exactly 1 changes no bit.
    var = (running_var * ratio + eps * (ratio - 1.0)).clamp(min=0.0)
    scale = ((running_var + eps) / (train.var + eps)).sqrt()
    return Population(clean.count, running_mean + (clean.mean - train.mean) * scale, var)


def _check_running(site: BatchNormSite) -> None:
    if not (site.running_mean.isfinite().all() and site.running_var.isfinite().all()):
        raise FixDeclinedError(
            f"the running statistics of '{site.name}' are not finite: there is nothing to correct",
            hint="--recalibrate replaces them.",
        )
