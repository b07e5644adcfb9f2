"""Recalibrate: give every BatchNorm the statistics of the network with dropout off.

What is written is C, the population statistics of lockstep's clean pass: mean and unbiased
variance (ddof 1) over all calibration samples, each layer's taken while the layers above it
already normalise by theirs. ``torch.optim.swa_utils.update_bn`` leaves dropout on and so leaves
the shift where it was; Li et al. (CVPR 2019, section 4.4) let the moving averages creep
towards it, which takes many epochs and stops short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from varshift_cli.errors import FixDeclinedError
from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.measurement.passes import Procedure
from varshift_cli.remedies.populations import Populations
from varshift_cli.remedies.selection import Selection
from varshift_cli.statistics import Population


@dataclass(frozen=True, slots=True, eq=False)
class NewStatistics:
    """What to write, by name of the BN module, and how it was found."""

    populations: Mapping[str, Population]
    selection: Selection
    procedure: Procedure


def recalibrated(found: Populations) -> NewStatistics:
    """What recalibration writes, from populations that were gathered.

    Raises:
        FixDeclinedError: Statistics came out non-finite.
    """
    check_finite_statistics(found.clean)
    return NewStatistics(found.clean, found.selection, found.procedure)


def write_statistics(catalogue: BatchNormCatalogue, populations: Mapping[str, Population]) -> None:
    """Fill the running buffers in place: the same tensor objects, so that aliases stay valid."""
    with torch.no_grad():
        for name, population in populations.items():
            site = catalogue.sites[name]
            site.running_mean.copy_(population.mean)
            site.running_var.copy_(population.var)


def check_finite_statistics(populations: Mapping[str, Population]) -> None:
    """Refuse to write NaN or infinity.

    Raises:
        FixDeclinedError: A mean or variance is not finite; names the first layer.
    """
    for name, population in populations.items():
        if not (population.mean.isfinite().all() and population.var.isfinite().all()):
            raise FixDeclinedError(
                f"the statistics of what enters '{name}' are not finite: nothing was changed",
                hint="The weights or activations overflow; scan names the first layer affected.",
            )
