"""Repair a model in memory: compute, write, prove; undone if the proof fails."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from varshift_cli.errors import FixDeclinedError, NothingToMeasureError
from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.instrument.borrow import Forward
from varshift_cli.measurement import targets_of
from varshift_cli.measurement.outputs import accuracy_of
from varshift_cli.records import Batch, LayerRepair, Progress, RepairRecord, Skipped
from varshift_cli.remedies import (
    NewStatistics,
    Verification,
    Workload,
    gather_populations,
    recalibrated,
    verify,
    write_statistics,
)
from varshift_cli.remedies.undoing import buffers_restored_on_error
from varshift_cli.statistics import Population

TOLERANCE = 1e-3
"""A recalibration whose proof leaves more than this at any channel is taken back. Lockstep leaves
1e-7; data-dependent control flow leaves more."""
WINDOWED_TOLERANCE = 5e-2
"""The same where memory forced windows, whose statistics are not quite exact."""


@dataclass(frozen=True, slots=True, eq=False)
class Repair:
    """A repair that was carried out, with the eval passes before and after it."""

    record: RepairRecord
    populations: Mapping[str, Population]
    before: Verification
    after: Verification
    buffers: Mapping[str, tuple[str, str] | None]
    """Names of mean and variance in the model, by name of the BN."""


def repair_in_memory(
    model: nn.Module,
    catalogue: BatchNormCatalogue,
    batches: Sequence[Batch],
    *,
    frozen: Collection[str],
    progress: Progress,
    forward: Forward | None = None,
    tolerance: float = TOLERANCE,
) -> Repair:
    """Recalibrate in place, and prove it by a separate eval pass.

    Raises:
        NothingToMeasureError: No layer can be written.
        FixDeclinedError: Noise that cannot be switched off, or a residual beyond ``tolerance``;
            the buffers are then as they were.
        ForwardError: The model's forward raised.
    """
    before = verify(model, catalogue, batches, progress=progress, forward=forward)
    refuse_noise(before.always_on)
    work = Workload(model, catalogue, batches, frozen, progress, forward)
    new = recalibrated(gather_populations(work, with_train=False))
    return carry_out(work, "recalibrate", new, before, tolerance)


def refuse_noise(always_on: Sequence[str]) -> None:
    """Refuse a model in which dropout cannot be switched off.

    Raises:
        FixDeclinedError: Names the dropouts that stay on.
    """
    if always_on:
        raise FixDeclinedError(
            f"dropout stays on in eval(): {', '.join(always_on)}",
            hint="Statistics taken with it off would not hold in deployment. Pass "
            "training=self.training to the functional call, and fix again.",
        )


def carry_out(
    work: Workload,
    method: str,
    new: NewStatistics,
    before: Verification,
    tolerance: float = TOLERANCE,
) -> Repair:
    """Write new statistics into the model, and prove them by a separate eval pass.

    After a recalibration every layer meets what its buffers hold. After a correction what is not
    dropout's doing is still there, so that only what came out broken is taken back.

    Raises:
        NothingToMeasureError: No layer can be written.
        FixDeclinedError: The proof failed; the buffers are as they were.
        ForwardError: The model's forward raised; likewise.
    """
    names = new.selection.names
    if not names:
        raise _nothing_to_write(new.selection.skipped)
    exact = method == "recalibrate"
    tolerance = max(tolerance, _rounding(work.catalogue, names))
    if new.procedure.windows > 1:
        tolerance = max(tolerance, WINDOWED_TOLERANCE)
    with buffers_restored_on_error(work.catalogue):
        write_statistics(work.catalogue, new.populations)
        after = verify(
            work.model,
            work.catalogue,
            work.batches,
            names=names,
            progress=work.progress,
            forward=work.forward,
        )
        _accept(after, tolerance if exact else math.inf)
    proof = after.worst if exact else after.mean
    targets = targets_of(work.batches)
    record = RepairRecord(
        method=method,
        layers=tuple(LayerRepair(name, before.mean[name], after.mean[name]) for name in names),
        skipped=new.selection.skipped,
        residual=max(proof.values()) - 1.0,
        samples=sum(batch.size for batch in work.batches),
        batches=len(work.batches),
        windows=new.procedure.windows,
        procedure=new.procedure.method,
        accuracy_before=accuracy_of(before.outputs, targets),
        accuracy_after=accuracy_of(after.outputs, targets),
    )
    buffers = {name: work.catalogue.sites[name].buffers for name in names}
    return Repair(record, new.populations, before, after, buffers)


def _rounding(catalogue: BatchNormCatalogue, names: Sequence[str]) -> float:
    """Twice the step between numbers in the coarsest buffer: its own rounding, and that above it.

    It matters for half precision alone.
    """
    return 2.0 * max(torch.finfo(catalogue.sites[name].running_var.dtype).eps for name in names)


def nothing_done(method: str, new: NewStatistics, batches: Sequence[Batch]) -> RepairRecord:
    """The record of a repair that found no layer to change."""
    return RepairRecord(
        method=method,
        layers=(),
        skipped=new.selection.skipped,
        residual=0.0,
        samples=sum(batch.size for batch in batches),
        batches=len(batches),
        windows=new.procedure.windows,
        procedure=new.procedure.method,
    )


def _accept(after: Verification, tolerance: float) -> None:
    name, worst = max(after.worst.items(), key=lambda item: (math.isnan(item[1]), item[1]))
    if not math.isfinite(worst):
        raise FixDeclinedError(
            f"the repair did not hold: after it the variance that enters '{name}' is not finite; "
            "taken back"
        )
    if not worst - 1.0 <= tolerance:
        raise FixDeclinedError(
            f"the repair did not hold: after it '{name}' is still off by a factor of {worst:.4g} "
            f"in its worst channel (at most {1.0 + tolerance:g} is accepted); taken back",
            hint="A forward that changes from call to call, or whose path depends on the data, "
            "can cause this.",
        )


def _nothing_to_write(skipped: Sequence[Skipped]) -> NothingToMeasureError:
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped[:3])
    return NothingToMeasureError(
        f"no BatchNorm layer can be written ({reasons or 'the model has none'})"
    )
