"""``varshift fix``: read, repair in memory, prove, write, verify what was written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from varshift_cli.errors import FixDeclinedError, UsageError
from varshift_cli.loading import LoadedData, PatchRecord, weights_file
from varshift_cli.measurement.outputs import is_classifier, labels_of
from varshift_cli.pipeline.inputs import Inputs, load_calibration, open_inputs
from varshift_cli.pipeline.repair import Repair, repair_in_memory
from varshift_cli.pipeline.scanning import measure_inputs
from varshift_cli.records import (
    LEVEL_BOUNDS,
    FixRecord,
    FixRequest,
    Interval,
    Level,
    Progress,
    Report,
    Score,
    SilentProgress,
    worst_layer,
)
from varshift_cli.remedies import verify
from varshift_cli.remedies.selection import frozen_layers
from varshift_cli.statistics import Population

_ABOVE = LEVEL_BOUNDS[Level.MILD]


@dataclass(frozen=True, slots=True, eq=False)
class _Eval:
    """One data set and the model's outputs on it before the repair."""

    name: str
    data: LoadedData
    outputs: Tensor | None


def fix_checkpoint(request: FixRequest, progress: Progress | None = None) -> FixRecord:
    """Repair a checkpoint's BatchNorm statistics into a new, verified file.

    Args:
        request: What to fix, how, and where to write.
        progress: Told of each stage.

    Raises:
        FixDeclinedError: The repair was refused or did not hold; nothing was written.
        VarshiftError: Something is wrong with the user's files, options or model.
    """
    progress = progress or SilentProgress()
    output = None if request.dry_run else output_path(request)
    inputs = open_inputs(request.scan)
    before = measure_inputs(inputs, request.scan, progress)[1]
    if not request.force:
        _keep_off(before, inputs)
    held_out = _held_out(request, inputs, progress)
    catalogue = inputs.find_batch_norms()
    frozen = frozenset() if request.include_frozen else frozen_layers(inputs.model, catalogue)
    repair = repair_in_memory(
        inputs.model,
        catalogue,
        inputs.data.batches,
        frozen=frozen,
        progress=progress,
        forward=inputs.forward,
        regroup=inputs.data.regroupable,
    )
    scores = _scores(request, repair, inputs, held_out, progress)
    written = None if output is None else _write(inputs, repair, output, request)
    return _record(before, repair, scores, output, written, inputs)


def output_path(request: FixRequest) -> Path:
    """Where to write; checked before the work begins.

    Raises:
        UsageError: The file exists, or its folder does not.
    """
    source = weights_file(request.scan.model)
    given = request.output
    output = Path(given) if given else source.with_name(f"{source.stem}.fixed{source.suffix}")
    if output.is_dir():
        output = output / f"{source.stem}.fixed{source.suffix}"
    if not output.parent.is_dir():
        raise UsageError(f"the output folder {output.parent} does not exist")
    if output.exists() and source.exists() and output.samefile(source):
        raise UsageError(
            f"{output} is the checkpoint itself", hint="Give another name with --output."
        )
    if output.exists() and not request.overwrite:
        raise UsageError(
            f"{output} is already there", hint="Add --overwrite, or give --output another name."
        )
    return output


def _keep_off(before: Report, inputs: Inputs) -> None:
    """Refuse what only labels could justify (DESIGN section 6)."""
    codes = {finding.code for finding in before.findings}
    if "VS201" in codes and (before.effect is None or before.effect.accuracy is None):
        raise FixDeclinedError(
            "running statistics are at mean 0, variance 1 and were never updated: either they "
            "were forgotten, or the network was trained in eval mode and they are right",
            hint="Only labels can tell: give data with labels, or --force.",
        )
    if "VS203" in codes:
        raise FixDeclinedError(
            "the checkpoint has no place for the running statistics of "
            f"{len(inputs.built.missing_buffers)} buffers, so they cannot be written into it",
            hint="Save the checkpoint again from a model whose state dict holds them.",
        )


def _held_out(request: FixRequest, inputs: Inputs, progress: Progress) -> list[_Eval]:
    if request.holdout is None:
        return []
    search = [Path.cwd(), inputs.checkpoint.path.parent]
    data = load_calibration(request.scan, request.holdout, inputs.built, search)
    outputs = _run(inputs, data, progress)
    return [_Eval(_name(request.holdout), data, outputs)]


def _run(inputs: Inputs, data: LoadedData, progress: Progress) -> Tensor | None:
    return verify(
        inputs.model,
        inputs.find_batch_norms(),
        data.batches,
        progress=progress,
        forward=inputs.forward,
    ).outputs


def _scores(
    request: FixRequest,
    repair: Repair,
    inputs: Inputs,
    held_out: Sequence[_Eval],
    progress: Progress,
) -> tuple[Score, ...]:
    calibration = _Eval(_name(request.scan.data), inputs.data, repair.before.outputs)
    found = [_score(calibration, repair.after.outputs)]
    found += [_score(each, _run(inputs, each.data, progress)) for each in held_out]
    return tuple(score for score in found if score is not None)


def _score(before: _Eval, after: Tensor | None) -> Score | None:
    """Accuracy before and after, with an interval from the paired per-sample differences."""
    labels = labels_of(before.data.batches)
    was_outputs = before.outputs
    if labels is None or was_outputs is None or after is None:
        return None
    if not (is_classifier(was_outputs, labels) and is_classifier(after, labels)):
        return None
    was = (was_outputs.argmax(1) == labels).double()
    now = (after.argmax(1) == labels).double()
    change = now - was
    half = 1.96 * float(change.std()) / math.sqrt(len(labels))
    mean = float(change.mean())
    return Score(
        "accuracy",
        before.name,
        float(was.mean()),
        float(now.mean()),
        len(labels),
        Interval(mean - half, mean + half),
    )


def _write(inputs: Inputs, repair: Repair, output: Path, request: FixRequest) -> PatchRecord:
    buffers: dict[str, Tensor] = {}
    for name, population in repair.populations.items():
        for leaf, value in _leaves(population):
            path = f"{name}.{leaf}" if name else leaf
            buffers[inputs.built.names[path]] = value
    return inputs.checkpoint.patch(
        output, buffers, key=inputs.state.key, overwrite=request.overwrite
    )


def _leaves(population: Population) -> tuple[tuple[str, Tensor], ...]:
    """As they were verified: rounded to what the model held."""
    return (
        ("running_mean", population.mean.to(torch.float32).cpu()),
        ("running_var", population.var.to(torch.float32).cpu()),
    )


def _record(
    before: Report,
    repair: Repair,
    scores: tuple[Score, ...],
    output: Path | None,
    written: PatchRecord | None,
    inputs: Inputs,
) -> FixRecord:
    worst = worst_layer(before.layers)
    worst_after = max(layer.shift_after for layer in repair.record.layers)
    return FixRecord(
        checkpoint=before.checkpoint,
        output=None if output is None else str(output),
        sidecar=None,
        output_sha256=None if written is None else written.sha256,
        changed_buffers=0 if written is None else written.changed_tensors,
        changed_bytes=0 if written is None else written.changed_bytes,
        repair=repair.record,
        worst_before=1.0 if worst is None or worst.shift is None else worst.shift,
        worst_layer_before="" if worst is None else worst.name,
        worst_after=worst_after,
        above_before=sum((layer.shift or 1.0) > _ABOVE for layer in before.layers),
        above_after=sum(layer.shift_after > _ABOVE for layer in repair.record.layers),
        measured=len(before.layers),
        scores=scores,
        notes=inputs.notes,
    )


def _name(spec: str | None) -> str:
    return "data" if spec is None else spec
