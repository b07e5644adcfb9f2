"""``varshift fix``: read, choose, repair in memory, prove, judge, write, read back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from varshift_cli.errors import FixDeclinedError, UsageError
from varshift_cli.measurement import Measurement
from varshift_cli.pipeline.choice import NEVER_UPDATED, Choice, harm, never_updated, told_harm
from varshift_cli.pipeline.crossfit import statistics_by
from varshift_cli.pipeline.deciding import Evidence, HeldOut, adapted, decide, unseen_outputs
from varshift_cli.pipeline.effects import judge_of
from varshift_cli.pipeline.inputs import Inputs, load_other_data, open_inputs
from varshift_cli.pipeline.measured import populations_of, verification_of
from varshift_cli.pipeline.places import output_path
from varshift_cli.pipeline.repair import TOLERANCE, Repair, carry_out, refuse_noise
from varshift_cli.pipeline.scanning import look_at
from varshift_cli.pipeline.scoring import is_better
from varshift_cli.pipeline.writing import (
    KINDS,
    Written,
    earlier_repair,
    revert_checkpoint,
    write_repaired,
)
from varshift_cli.records import (
    LEVEL_BOUNDS,
    Describe,
    FixRecord,
    FixRequest,
    Level,
    Progress,
    Report,
    Score,
    SilentProgress,
    worst_layer,
)
from varshift_cli.remedies import NewStatistics, Workload, verify
from varshift_cli.remedies.rounding import as_held, rounding_notes, slack
from varshift_cli.remedies.selection import frozen_layers

_ABOVE = LEVEL_BOUNDS[Level.MILD]
_SAME = 1e-4
"""Relative difference below which new statistics are the old ones."""


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """One fix under way."""

    request: FixRequest
    inputs: Inputs
    evidence: Evidence

    @property
    def before(self) -> Report:
        return self.evidence.report


def fix_checkpoint(request: FixRequest, progress: Progress | None = None) -> FixRecord:
    """Repair a checkpoint's BatchNorm statistics into a new, verified file.

    Args:
        request: What to fix, how, and where to write.
        progress: Told of each stage.

    Raises:
        FixDeclinedError: The repair was refused or did not hold; nothing was written.
        VarshiftError: Something is wrong with the user's files, options or model.
    """
    if request.method == "revert":
        return revert_checkpoint(request)
    progress = progress or SilentProgress()
    _refuse_own_data(request)
    output = None if request.dry_run else output_path(request)
    inputs = open_inputs(request.scan, request.holdout)
    look = look_at(inputs, request.scan, progress)
    measured, before = look.measured, look.report(progress, diagnose=False)
    _refuse_missing(before, inputs)
    task = _Task(request, inputs, _evidence(request, inputs, measured, before, progress))
    earlier = _made_before(request, inputs)
    if earlier is not None:
        return _nothing(task, earlier)
    refuse_noise(verification_of(measured).always_on)
    choice = decide(task.evidence) if request.method == "auto" else _as_asked(task)
    if not choice.needed:
        return _nothing(task, choice.reason)
    if choice.method is None:
        labelled = task.evidence.as_is() is not None
        raise FixDeclinedError(choice.reason, hint=_LEAVE if labelled else _LABELS + _LEAVE)
    return _carry_out(task, choice, choice.method, output)


def _refuse_own_data(request: FixRequest) -> None:
    if request.holdout is not None and request.holdout == request.scan.data:
        raise UsageError(
            f"--holdout {request.holdout} is --data itself: the statistics would be judged on the "
            "samples that they come from",
            hint="Give other data, or leave --holdout out: labels are then held out by fifths.",
        )


_LABELS = (
    "Give data with labels, or --holdout with data that have them: they decide between "
    "recalibrate, correct and neither. Without them: "
)
_LEAVE = (
    "Nothing was written. Leave it as it is, and hold it so in CI: varshift scan with the same "
    "options and --report base.json once, then with --baseline base.json. (--force beside "
    "--recalibrate or --correct writes that repair all the same.)"
)


def _evidence(
    request: FixRequest, inputs: Inputs, measured: Measurement, before: Report, progress: Progress
) -> Evidence:
    catalogue = inputs.find_batch_norms()
    frozen = frozenset() if request.include_frozen else frozen_layers(inputs.model, catalogue)
    work = Workload(
        inputs.model,
        catalogue,
        inputs.data.batches,
        frozen,
        progress,
        inputs.forward,
        measured.join,
        request.scan.seed,
        inputs.memory,
        measured.wiring,
    )
    return Evidence(
        measured,
        before,
        work,
        judge_of(request.scan, inputs, inputs.data),
        _held_out(request, inputs, work),
        inputs.data.regroupable,
        request.scan.train_batch_size or inputs.data.batch_size,
        inputs.built.fixed_batch is not None,
    )


def _held_out(request: FixRequest, inputs: Inputs, work: Workload) -> HeldOut | None:
    if request.holdout is None:
        return None
    data = load_other_data(request.scan, request.holdout, inputs, "--holdout", work.progress)
    outputs = verify(
        work.model, work.catalogue, data.batches, progress=work.progress, forward=work.forward
    ).outputs
    judge = judge_of(request.scan, inputs, data)
    held = HeldOut(request.holdout, data.batches, judge, outputs, data.description)
    finite = outputs is None or bool(outputs.isfinite().all())
    if finite and not held.judge.can(outputs):
        reason = held.unscored() or "it has no labels"
        raise UsageError(
            f"--holdout {request.holdout}: no repair can be scored on it: {reason}",
            hint="Give held-out data with targets that fit the outputs, or a figure of your own: "
            "--metric file.py:f, f(outputs, labels) -> higher is better.",
        )
    return held


def _refuse_missing(before: Report, inputs: Inputs) -> None:
    if any(finding.code == "VS203" for finding in before.findings):
        raise FixDeclinedError(
            "the checkpoint has no place for the running statistics of "
            f"{len(inputs.built.missing_buffers)} buffers, so they cannot be written into it",
            hint="Save the checkpoint again from a model whose state dict holds them.",
        )


def _made_before(request: FixRequest, inputs: Inputs) -> str | None:
    """Why a repair of ours needs no second one; a recalibration on purpose may be made again."""
    sidecar = earlier_repair(inputs)
    if sidecar is None or request.method == "recalibrate":
        return None
    made = sidecar.provenance
    return (
        f"{inputs.checkpoint.path.name} was {KINDS.get(made.method, made.method)} by varshift "
        f"already, on {made.data} ({sidecar.path.name}); --recalibrate takes statistics of these "
        "data all the same"
    )


def _as_asked(task: _Task) -> Choice:
    """The repair that was named, unless it must not be made or labels speak against it.

    Raises:
        FixDeclinedError: It does harm beyond noise, or nobody can tell.
    """
    method, evidence = task.request.method, task.evidence
    judged = evidence.as_is()
    if judged is None:
        _refuse_unlabelled(task)
    if method == "correct" and task.before.buffers.describe is Describe.CLEAN:
        return Choice(
            None,
            "the buffers describe the network with dropout off already; a second correction "
            "would do harm",
            needed=False,
        )
    outputs = None if judged is None else unseen_outputs(evidence, (method,)).get(method)
    scores: tuple[Score, ...] = ()
    if judged is not None and outputs is not None:
        scores = judged[0].compare(judged[1], outputs, evidence.ground.name)
    lost = None if scores or task.request.force else adapted(evidence, method)
    if lost is not None:
        raise FixDeclinedError(f"{lost}; nothing was written", hint=_TELL)
    worse = harm(scores)
    if worse is not None and not task.request.force:
        raise FixDeclinedError(
            f"{told_harm(method, worse)}; nothing was written",
            hint="--force writes it all the same.",
        )
    if scores and not task.request.force and not is_better(scores[0]):
        _refuse_leap(task, method, scores[0])
    return Choice(method, "as asked", scores=scores)


def _refuse_leap(task: _Task, method: str, score: Score) -> None:
    """Refuse to replace buffers that training may have used, where labels do not speak for it."""
    if never_updated(task.before):
        raise FixDeclinedError(
            f"{NEVER_UPDATED}; {method} raises {score.name} on {score.data} by no more than noise "
            f"({score.before:.4g} to {score.after:.4g})",
            hint="--force writes it all the same.",
        )


_TELL = (
    "Only a figure of your own can tell: data with labels, or --metric file.py:f, f(outputs, "
    "labels) -> higher is better. --force writes it all the same."
)


def _refuse_unlabelled(task: _Task) -> None:
    """Refuse what only labels could justify."""
    if task.request.force:
        return
    if never_updated(task.before):
        raise FixDeclinedError(
            NEVER_UPDATED,
            hint="Only labels can tell: give data with labels, or --force.",
        )


def _carry_out(task: _Task, choice: Choice, method: str, output: Path | None) -> FixRecord:
    evidence = task.evidence
    work = evidence.work
    new = statistics_by(method, populations_of(evidence.measured, work), work)
    if method == "correct" and not new.selection.names:
        reason = "no dropout reaches any BatchNorm layer: there is nothing to correct"
        chosen = task.request.method == "auto"
        return _nothing(task, f"{reason}; {choice.reason}" if chosen else reason)
    held = task.inputs.held_dtypes()
    new = as_held(new, held)
    if new.selection.names and _changes_nothing(new, work):
        return _nothing(task, "the buffers hold these statistics already")
    tolerance = max(TOLERANCE, slack(held.values()))
    repair = carry_out(work, method, new, verification_of(evidence.measured), tolerance)
    scores = _scores(task, choice, repair)
    written = None
    if output is not None:
        written = write_repaired(task.inputs, repair, output, task.request, method=method)
    record = _record(task, choice, repair, scores, written)
    return replace(record, notes=(*record.notes, *rounding_notes(held)))


def _changes_nothing(new: NewStatistics, work: Workload) -> bool:
    """Whether every new statistic is the old one but for rounding."""
    for name, population in new.populations.items():
        site = work.catalogue.sites[name]
        var, mean = site.held_var, site.held_mean
        scale = population.var.clamp(min=1e-30)
        if not bool(((var - population.var).abs() <= _SAME * scale).all()):
            return False
        if not bool(((mean - population.mean).abs() <= _SAME * scale.sqrt()).all()):
            return False
    return True


def _scores(task: _Task, choice: Choice, repair: Repair) -> tuple[Score, ...]:
    """On held-out parts; with ``--holdout`` on the calibration data too, to see them side by side.

    The statistics that are written come from all samples, so the other data are scored anew.
    """
    evidence, request = task.evidence, task.request
    if evidence.held_out is None and choice.scores:
        return choice.scores
    name = "data" if request.scan.data is None else request.scan.data
    scores = evidence.judge.compare(repair.before.outputs, repair.after.outputs, name)
    found = tuple(replace(score, in_sample=True) for score in scores)
    held = evidence.held_out
    if held is None:
        return found
    work = evidence.work
    after = verify(
        work.model, work.catalogue, held.batches, progress=work.progress, forward=work.forward
    ).outputs
    return (*found, *held.judge.compare(held.outputs, after, held.name))


def _nothing(task: _Task, reason: str) -> FixRecord:
    worst, held = worst_layer(task.before.layers), task.evidence.held_out
    return FixRecord(
        checkpoint=task.before.checkpoint,
        output=None,
        sidecar=None,
        output_sha256=None,
        changed_buffers=0,
        changed_bytes=0,
        repair=None,
        worst_before=None if worst is None else worst.shift,
        worst_layer_before="" if worst is None else worst.name,
        worst_after=None,
        above_before=_above(task.before),
        above_after=0,
        measured=len(task.before.layers),
        scores=(),
        notes=task.inputs.notes,
        status="nothing_to_repair",
        method=task.request.method,
        reason=reason,
        holdout=None if held is None else held.description,
    )


def _record(
    task: _Task,
    choice: Choice,
    repair: Repair,
    scores: tuple[Score, ...],
    written: Written | None,
) -> FixRecord:
    after = [layer.shift_after for layer in repair.record.layers]
    patch = None if written is None else written.patch
    return replace(
        _nothing(task, choice.reason),
        output=None if written is None else str(written.output),
        sidecar=None if written is None else str(written.sidecar),
        output_sha256=None if patch is None else patch.sha256,
        changed_buffers=0 if patch is None else patch.changed_tensors,
        changed_bytes=0 if patch is None else patch.changed_bytes,
        repair=repair.record,
        worst_after=max(after),
        above_after=sum(shift > _ABOVE for shift in after),
        scores=scores,
        notes=(*task.inputs.notes, *(() if patch is None else patch.notes)),
        status="dry_run" if written is None else "written",
        chosen=choice.method,
    )


def _above(report: Report) -> int:
    return sum((layer.shift or 1.0) > _ABOVE for layer in report.layers)
