"""Repair a model in memory: measure, compute, write, prove; undone if the proof fails."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from varshift_cli.errors import FixDeclinedError, NothingToMeasureError
from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.instrument.borrow import Forward
from varshift_cli.measurement.outputs import accuracy_of, labels_of
from varshift_cli.measurement.regroup import join_factor
from varshift_cli.records import Batch, LayerRepair, Progress, RepairRecord, Skipped
from varshift_cli.remedies import Verification, clean_statistics, verify, write_statistics
from varshift_cli.statistics import Population

TOLERANCE = 1e-3
"""A repair whose proof leaves more than this at any layer is taken back. Lockstep leaves 1e-7;
windows and data-dependent control flow leave more."""


@dataclass(frozen=True, slots=True, eq=False)
class Repair:
    """A repair that was carried out, with the eval passes before and after it."""

    record: RepairRecord
    populations: Mapping[str, Population]
    before: Verification
    after: Verification


def repair_in_memory(
    model: nn.Module,
    catalogue: BatchNormCatalogue,
    batches: Sequence[Batch],
    *,
    frozen: Collection[str],
    progress: Progress,
    forward: Forward | None = None,
    regroup: bool = False,
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
    if before.always_on:
        raise FixDeclinedError(
            f"dropout stays on in eval(): {', '.join(before.always_on)}",
            hint="Statistics taken with it off would not hold in deployment. Pass "
            "training=self.training to the functional call, and fix again.",
        )
    clean = clean_statistics(
        model,
        catalogue,
        batches,
        frozen=frozen,
        progress=progress,
        forward=forward,
        join=join_factor(before.largest_bytes, len(batches)) if regroup else 1,
    )
    names = clean.selection.names
    if not names:
        raise _nothing_to_write(clean.selection.skipped)
    with _taken_back_on_error(catalogue):
        write_statistics(catalogue, clean.populations)
        after = verify(model, catalogue, batches, names=names, progress=progress, forward=forward)
        _accept(after, tolerance)
    labels = labels_of(batches)
    record = RepairRecord(
        method="recalibrate",
        layers=tuple(LayerRepair(name, before.worst[name], after.worst[name]) for name in names),
        skipped=clean.selection.skipped,
        residual=max(after.worst.values()) - 1.0,
        samples=sum(batch.size for batch in batches),
        batches=len(batches),
        windows=clean.procedure.windows,
        procedure=clean.procedure.method,
        accuracy_before=accuracy_of(before.outputs, labels),
        accuracy_after=accuracy_of(after.outputs, labels),
    )
    return Repair(record, clean.populations, before, after)


def _accept(after: Verification, tolerance: float) -> None:
    name, worst = max(after.worst.items(), key=lambda item: item[1])
    if not worst - 1.0 <= tolerance:
        raise FixDeclinedError(
            f"the repair did not hold: after it '{name}' is still off by a factor of {worst:.4g} "
            f"in its worst channel (at most {1.0 + tolerance:g} is accepted); taken back",
            hint="A forward that changes from call to call, or whose path depends on the data, "
            "can cause this.",
        )


@contextmanager
def _taken_back_on_error(catalogue: BatchNormCatalogue) -> Iterator[None]:
    saved: list[tuple[Tensor, Tensor]] = [
        (buffer, buffer.detach().clone())
        for site in catalogue.sites.values()
        for buffer in (site.running_mean, site.running_var)
    ]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        raise


def _nothing_to_write(skipped: Sequence[Skipped]) -> NothingToMeasureError:
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped[:3])
    return NothingToMeasureError(
        f"no BatchNorm layer can be written ({reasons or 'the model has none'})"
    )
