"""Population statistics of every BatchNorm that may be written, with dropout off and on.

Layers that will not be written (shared, frozen, ...) go on normalising by their running buffers,
since that is what they will do in deployment. Which these are is known once the calls were seen;
a pass that got it wrong is repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from varshift_cli.instrument import BatchNormCatalogue, Wiring, borrowed
from varshift_cli.instrument.borrow import Forward, device_of
from varshift_cli.instrument.failures import told_forward_errors
from varshift_cli.instrument.prefix import Carrier
from varshift_cli.measurement.passes import (
    Plan,
    Procedure,
    forget,
    plan_passes,
    run_population,
    wire,
)
from varshift_cli.measurement.regimes import PopulationRegime
from varshift_cli.measurement.regroup import join_batches
from varshift_cli.measurement.samples import Samples, identify
from varshift_cli.records import Batch, Progress, stage
from varshift_cli.remedies.selection import Selection, select_layers
from varshift_cli.statistics import Population


@dataclass(frozen=True, slots=True, eq=False)
class Populations:
    """C and T of every BN in ``selection``, by name of its module.

    Attributes:
        clean: Dropout off.
        train: Dropout on; the same object as ``clean`` in a network without dropout, ``None``
            where it was not asked for.
        eps: As passed in the call.
        reached: Names of BN that a dropout reaches, through other BN too.
        selection: What may be written, and what not.
        procedure: How the passes were carried out.
    """

    clean: Mapping[str, Population]
    train: Mapping[str, Population] | None
    eps: Mapping[str, float]
    reached: frozenset[str]
    selection: Selection
    procedure: Procedure


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """What every pass of a repair needs.

    Attributes:
        model: On its device; no pass changes it.
        catalogue: Its BN.
        batches: Calibration batches.
        frozen: Names of BN not to be written.
        progress: Told of each pass.
        forward: A user's own way of calling the model.
        join: How many consecutive batches may go through together.
        seed: Of dropout masks.
        memory: Bytes that parked forwards may hold; half of what is free by default.
        wiring: Of the model, where a scan has traced it; else a small forward does.
    """

    model: nn.Module
    catalogue: BatchNormCatalogue
    batches: Sequence[Batch]
    frozen: Collection[str]
    progress: Progress
    forward: Forward | None = None
    join: int = 1
    seed: int = 0
    memory: int | None = None
    wiring: Wiring | None = None

    def on(self, batches: Sequence[Batch]) -> Workload:
        """The same on other batches."""
        return replace(self, batches=batches)


def gather_populations(work: Workload, *, with_train: bool) -> Populations:
    """Run the clean pass, and with ``with_train`` the train pass over the same batches.

    Raises:
        ForwardError: The model's forward raised.
    """
    samples = (
        identify(work.batches, device_of(work.model))
        if with_train
        else Samples.anonymous(len(work.batches))
    )
    batches, samples = join_batches(work.batches, samples, work.join)
    work = work.on(batches)
    wiring, plan = _planned(work)
    kept: frozenset[str] = frozenset(work.frozen)
    while True:
        recorder, player = plan.carriers(wiring) if with_train else (None, None)
        clean = PopulationRegime(samples, noise_on=False, seed=work.seed, grouped=False, kept=kept)
        title = "clean pass, dropout off"
        procedure = _run(work, clean, title, plan, recorder)
        selection, unwritten = _selected(work, clean)
        if unwritten <= kept:
            break
        kept |= unwritten
    found = _pooled(clean, selection)
    train: Mapping[str, Population] | None = None
    reached: frozenset[str] = frozenset()
    if with_train:
        train = found
        if clean.noise_seen:
            noisy = PopulationRegime(
                samples, noise_on=True, seed=work.seed, grouped=False, kept=kept
            )
            title = "train pass, dropout on"
            second = _run(work, noisy, title, plan, player)
            procedure = replace(procedure, diverged_at=procedure.diverged_at or second.diverged_at)
            train = _pooled(noisy, selection)
            reached = frozenset(key.name for key in wiring.reached())
    eps = {key.name: value for key, value in clean.eps.items()}
    return Populations(found, train, eps, reached, selection, procedure)


def _selected(work: Workload, regime: PopulationRegime) -> tuple[Selection, frozenset[str]]:
    """What may be written, and what was called but may not."""
    calls = Counter(key.name for key in regime.gathered.moments)
    selection = select_layers(
        work.catalogue, calls, batch_statistics=regime.batch_statistics, frozen=work.frozen
    )
    unwritten = frozenset(calls) - frozenset(selection.names) - regime.batch_statistics
    return selection, unwritten


def _pooled(regime: PopulationRegime, selection: Selection) -> dict[str, Population]:
    names = frozenset(selection.names)
    return {
        key.name: moments.pooled()
        for key, moments in regime.gathered.moments.items()
        if key.name in names
    }


def _planned(work: Workload) -> tuple[Wiring, Plan]:
    with (
        told_forward_errors(work.model, work.batches),
        borrowed(work.model, work.catalogue, work.forward) as instrumented,
    ):
        wiring = work.wiring or wire(instrumented, work.batches)[0]
        return wiring, plan_passes(instrumented, work.batches, wiring, work.memory)


def _run(
    work: Workload, regime: PopulationRegime, title: str, plan: Plan, carrier: Carrier | None
) -> Procedure:
    regime.on_settled = work.progress.advance
    with (
        stage(work.progress, title, len(work.batches) * len(work.catalogue.sites)),
        told_forward_errors(work.model, work.batches),
        borrowed(work.model, work.catalogue, work.forward) as instrumented,
    ):
        return run_population(
            instrumented, work.batches, regime, forget, plan=plan, carrier=carrier
        )
