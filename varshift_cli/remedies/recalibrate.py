"""Recalibrate: give every BatchNorm the statistics of the network with dropout off.

What is written is C, the population statistics of lockstep's clean pass (DESIGN section 5): mean
and unbiased variance (ddof 1) over all calibration samples, each layer's taken while the layers
above it already normalise by theirs. ``torch.optim.swa_utils.update_bn`` leaves dropout on and so
leaves the shift where it was; Li et al. (CVPR 2019, section 4.4) let the moving averages creep
towards it, which takes many epochs and stops short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from varshift_cli.errors import FixDeclinedError
from varshift_cli.instrument import BatchNormCatalogue, borrowed
from varshift_cli.instrument.borrow import Forward
from varshift_cli.instrument.failures import forward_error
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.measurement.passes import Procedure, run_population
from varshift_cli.measurement.regimes import PopulationRegime
from varshift_cli.measurement.regroup import join_batches
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch, Progress
from varshift_cli.remedies.selection import Selection, select_layers
from varshift_cli.statistics import Population


@dataclass(frozen=True, slots=True, eq=False)
class CleanStatistics:
    """What to write, by name of the BN module, and how it was found."""

    populations: Mapping[str, Population]
    selection: Selection
    procedure: Procedure


def clean_statistics(
    model: nn.Module,
    catalogue: BatchNormCatalogue,
    batches: Sequence[Batch],
    *,
    frozen: Collection[str],
    progress: Progress,
    forward: Forward | None = None,
    join: int = 1,
) -> CleanStatistics:
    """Population statistics with dropout off, in one pass; the model is not changed.

    Layers that will not be written go on normalising by their running buffers. Which these are is
    known once the calls were seen; a pass that got it wrong is repeated.

    Args:
        model: On its device.
        catalogue: Its BN.
        batches: Calibration batches.
        frozen: Names of BN not to be written.
        progress: Told of the pass.
        forward: A user's own way of calling the model.
        join: How many consecutive batches may go through together.

    Raises:
        ForwardError: The model's forward raised.
        FixDeclinedError: Statistics came out non-finite.
    """
    batches, nobody = join_batches(batches, Samples.anonymous(len(batches)), join)
    kept: frozenset[str] = frozenset(frozen)
    while True:
        regime = PopulationRegime(nobody, noise_on=False, seed=0, grouped=False, kept=kept)
        procedure = _run(model, catalogue, batches, regime, progress, forward)
        calls = Counter(key.name for key in regime.gathered.moments)
        selection = select_layers(
            catalogue, calls, batch_statistics=regime.batch_statistics, frozen=frozen
        )
        unwritten = frozenset(calls) - frozenset(selection.names) - regime.batch_statistics
        if unwritten <= kept:
            break
        kept |= unwritten
    populations = {
        key.name: moments.pooled()
        for key, moments in regime.gathered.moments.items()
        if key.name in selection.names
    }
    check_finite(populations)
    return CleanStatistics(populations, selection, procedure)


def write_statistics(catalogue: BatchNormCatalogue, populations: Mapping[str, Population]) -> None:
    """Fill the running buffers in place: the same tensor objects, so that aliases stay valid."""
    with torch.no_grad():
        for name, population in populations.items():
            site = catalogue.sites[name]
            site.running_mean.copy_(population.mean)
            site.running_var.copy_(population.var)


def check_finite(populations: Mapping[str, Population]) -> None:
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


def _run(
    model: nn.Module,
    catalogue: BatchNormCatalogue,
    batches: Sequence[Batch],
    regime: PopulationRegime,
    progress: Progress,
    forward: Forward | None,
) -> Procedure:
    progress.start("clean pass, dropout off", len(batches))
    try:
        with borrowed(model, catalogue, forward) as instrumented:
            return run_population(
                instrumented, batches, regime, lambda _index, _output: progress.advance()
            )
    except ForwardRaised as raised:
        cause = raised.__cause__ or raised
        raise forward_error(model, cause, raised.batch, batches[raised.batch]) from cause
    finally:
        progress.finish()
