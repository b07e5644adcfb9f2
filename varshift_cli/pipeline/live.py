"""The same on a model in memory: what a training script calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from varshift_cli.diagnosis import describe_buffers
from varshift_cli.errors import FixDeclinedError, UsageError
from varshift_cli.instrument import find_batch_norms
from varshift_cli.instrument.borrow import Forward, UserForward, device_of, on_whole_batches
from varshift_cli.loading.batches import common_size
from varshift_cli.measurement import measure, targets_of
from varshift_cli.pipeline.advice import without_harm
from varshift_cli.pipeline.assembly import Subject, assemble
from varshift_cli.pipeline.choice import harm, told_harm
from varshift_cli.pipeline.drawing import check_model, draw_batches
from varshift_cli.pipeline.inputs import refuse_unknown_noise
from varshift_cli.pipeline.measured import populations_of, verification_of
from varshift_cli.pipeline.repair import (
    Repair,
    carry_out,
    nothing_done,
    refuse_noise,
    repair_in_memory,
)
from varshift_cli.pipeline.scanning import dtype_of
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.pipeline.studies import Study
from varshift_cli.records import (
    Batch,
    CheckpointRecord,
    Describe,
    Progress,
    RepairRecord,
    Report,
    SilentProgress,
)
from varshift_cli.remedies import Workload, corrected
from varshift_cli.remedies.selection import frozen_layers
from varshift_cli.remedies.undoing import buffers_restored_on_error

SAMPLES = 1024
"""Enough to scan; the command line's default."""


def scan(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    samples: int | None = SAMPLES,
    seed: int = 0,
    channels: bool = False,
    attribute: bool = True,
    train_batch_size: int | None = None,
    forward: UserForward | None = None,
    noise: Sequence[type] = (),
    progress: Progress | None = None,
) -> Report:
    """Measure the variance shift of every BatchNorm layer of a live model.

    Args:
        model: Any ``nn.Module``, on any device, in train or eval mode; handed back unchanged.
        batches: An iterable of batches, such as a DataLoader: tensors (first dimension samples),
            (input, label) tuples, or dicts of keyword arguments. Each is drawn once and kept in
            memory until the scan is over.
        samples: No more than this many, the first that come, the last batch cut to fit; ``None``
            takes all.
        seed: Of dropout masks and of the bootstrap.
        channels: Also return per-channel arrays.
        attribute: Also say which dropout moves which layer, by passes with single dropouts on a
            few samples, where a layer is beyond *fine*.
        train_batch_size: Batch size of training (per device), to tell apart what it does: the
            factor *batch*, else part of *stale*.
        forward: ``forward(model, batch) -> outputs`` for models that are called otherwise; the
            batch is as ``batches`` gave it, numpy arrays as tensors and mappings as dicts.
        noise: Module types that are noise, to be switched as dropout is, beside those known by
            their class (DropPath, StochasticDepth, DropBlock and the like).
        progress: Told of each stage.

    Returns:
        The report: variances unbiased (ddof 1), ratios with +eps on both sides, 95 % intervals
        over groups of samples.

    Raises:
        UsageError: ``model`` is no module, ``batches`` nothing that yields batches, or ``samples``
            less than 1.
        DataError: Fewer than two samples, or non-finite input.
        NothingToMeasureError: No BatchNorm layer with running statistics was reached.
        ForwardError: The model's forward raised.
    """
    drawn, call, notes = _draw(model, batches, forward, noise, samples)
    catalogue = find_batch_norms(model, noise)
    progress = progress or SilentProgress()
    measured = measure(
        model,
        catalogue,
        drawn,
        seed=seed,
        progress=progress,
        forward=call,
        train_batch_size=train_batch_size,
    )
    study = Study(model, catalogue, drawn, seed, progress, call) if attribute else None
    subject = Subject(
        catalogue=catalogue,
        batches=drawn,
        checkpoint=CheckpointRecord(arch=type(model).__name__),
        data=None,
        batch_size=common_size(drawn),
        seed=seed,
        device=device_of(model),
        dtype=dtype_of(model),
        channels=channels,
        notes=notes,
        model=model,
        forward=call,
    )
    return without_harm(assemble(measured, subject, study))


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    include_frozen: bool = False,
    force: bool = False,
    forward: UserForward | None = None,
    noise: Sequence[type] = (),
    progress: Progress | None = None,
) -> RepairRecord:
    """Recompute BatchNorm statistics with dropout off; call it at the end of a training script.

    Where ``torch.optim.swa_utils.update_bn`` puts the whole model in train mode and so gathers
    statistics with dropout on, this writes the population mean and unbiased variance (ddof 1) of
    what each layer meets in eval mode: exactly, in one pass, at any batch size.

    Args:
        model: Any ``nn.Module``; its running buffers are filled in place (the same tensor
            objects), nothing else changes. Unchanged if anything raises.
        batches: As for :func:`scan`; the training data, augmentation included.
        include_frozen: Also write layers that stay in eval mode while the model trains.
        force: Also make a repair that does harm: by the targets in the batches, its accuracy (for
            a regression R2) falls beyond noise. Without targets nothing is judged.
        forward: As for :func:`scan`.
        noise: As for :func:`scan`.
        progress: Told of each stage.

    Returns:
        Each layer's shift before and after, the latter by a separate eval pass; layers that were
        left alone, with the reason.

    Raises:
        UsageError: ``model`` is no module, or ``batches`` nothing that yields batches.
        DataError: Fewer than two samples, or non-finite input.
        NothingToMeasureError: No layer could be written.
        ForwardError: The model's forward raised.
        FixDeclinedError: Non-finite statistics, dropout that ignores eval(), or harm; the buffers
            are as they were.
    """
    progress = progress or SilentProgress()
    drawn, call = _draw_to_repair(model, batches, forward, noise, progress)
    catalogue = find_batch_norms(model, noise)
    frozen = frozenset() if include_frozen else frozen_layers(model, catalogue)
    with buffers_restored_on_error(catalogue):
        repair = repair_in_memory(
            model, catalogue, drawn, frozen=frozen, forward=call, progress=progress
        )
        if not force:
            _refuse_harm(repair, drawn)
    return repair.record


def correct(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    seed: int = 0,
    include_frozen: bool = False,
    force: bool = False,
    forward: UserForward | None = None,
    noise: Sequence[type] = (),
    progress: Progress | None = None,
) -> RepairRecord:
    """Take out of the running buffers what dropout put in, by difference on these batches.

    Where :func:`recalibrate` gives the buffers the statistics of ``batches``, which therefore have
    to be training data with its augmentation, this removes dropout's part alone: any data of the
    kind will do, a few hundred samples are enough, and a model without dropout is left exactly as
    it is.

    Args:
        model: Any ``nn.Module``; its running buffers are filled in place (the same tensor
            objects), nothing else changes. Unchanged if anything raises.
        batches: As for :func:`scan`.
        seed: Of dropout masks.
        include_frozen: Also write layers that stay in eval mode while the model trains.
        force: Also make a repair that does harm: by the targets in the batches, its accuracy (for
            a regression R2) falls beyond noise. Without targets nothing is judged.
        forward: As for :func:`scan`.
        noise: As for :func:`scan`.
        progress: Told of each stage.

    Returns:
        Each layer's shift before and after (mean over channels), the latter by a separate eval
        pass; no layer in a model without dropout.

    Raises:
        UsageError: ``model`` is no module, or ``batches`` nothing that yields batches.
        DataError: Fewer than two samples, or non-finite input.
        NothingToMeasureError: No BatchNorm layer with running statistics was reached.
        ForwardError: The model's forward raised.
        FixDeclinedError: The buffers describe the model with dropout off already (applied twice,
            correction does harm), they are not finite, dropout ignores eval(), or the targets
            show harm; the buffers are as they were.
    """
    progress = progress or SilentProgress()
    drawn, call = _draw_to_repair(model, batches, forward, noise, progress)
    catalogue = find_batch_norms(model, noise)
    measured = measure(model, catalogue, drawn, seed=seed, progress=progress, forward=call)
    before = verification_of(measured)
    refuse_noise(before.always_on)
    if describe_buffers(measured.layers)[0].describe is Describe.CLEAN:
        raise FixDeclinedError(
            "the running statistics describe the network with dropout off already: nothing to "
            "correct, and a second correction would do harm"
        )
    frozen = frozenset() if include_frozen else frozen_layers(model, catalogue)
    work = Workload(
        model, catalogue, drawn, frozen, progress, call, seed=seed, wiring=measured.wiring
    )
    new = corrected(populations_of(measured, work), catalogue)
    if not new.selection.names:
        return nothing_done("correct", new, drawn)
    with buffers_restored_on_error(catalogue):
        repair = carry_out(work, "correct", new, before)
        if not force:
            _refuse_harm(repair, drawn)
    return repair.record


def _refuse_harm(repair: Repair, batches: Sequence[Batch]) -> None:
    """Refuse a repair that lowers what the targets in the batches tell, beyond noise."""
    judge = Judge(targets_of(batches))
    worse = harm(judge.compare(repair.before.outputs, repair.after.outputs, "these batches"))
    if worse is not None:
        raise FixDeclinedError(
            f"{told_harm(repair.record.method, worse)}; taken back",
            hint="The network may have adapted to the shift: leave it as it is. force=True "
            "repairs it all the same.",
        )


def _draw_to_repair(
    model: nn.Module,
    batches: Iterable[Any],
    forward: UserForward | None,
    noise: Sequence[type],
    progress: Progress,
) -> tuple[tuple[Batch, ...], Forward | None]:
    """The same; as the record of a repair has no notes, they are remarked on."""
    drawn, call, notes = _draw(model, batches, forward, noise)
    for note in notes:
        progress.remark(note)
    return drawn, call


def _draw(
    model: nn.Module,
    batches: Iterable[Any],
    forward: UserForward | None,
    noise: Sequence[type],
    samples: int | None = None,
) -> tuple[tuple[Batch, ...], Forward | None, tuple[str, ...]]:
    """What is to be measured, once the arguments are found to be what they should be, and notes."""
    check_model(model)
    if forward is not None and not callable(forward):
        raise UsageError(
            f"forward is a {type(forward).__name__}, not a function",
            hint="It is called as forward(model, batch), and returns the outputs.",
        )
    if isinstance(noise, str | type) or not all(isinstance(each, type) for each in noise):
        raise UsageError(
            "noise is not a sequence of module types", hint="For example noise=[DropPath]."
        )
    refuse_unknown_noise(model, noise)
    if samples is not None and samples < 1:
        raise UsageError(
            f"samples must be at least 1, but is {samples}", hint="None takes all samples."
        )
    drawn, notes = draw_batches(model, batches, samples=samples, as_given=forward is not None)
    return drawn, None if forward is None else on_whole_batches(forward), notes
