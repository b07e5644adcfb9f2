"""Decide which repair to take: measure what each would bring where labels allow, else by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from varshift_cli.diagnosis.buffers import OTHER_PROBABILITY
from varshift_cli.errors import FixDeclinedError
from varshift_cli.measurement import Measurement
from varshift_cli.measurement.agreement import agreement
from varshift_cli.measurement.figures import misfit
from varshift_cli.measurement.folds import cut_folds
from varshift_cli.pipeline.certainty import Certainty, answers_of
from varshift_cli.pipeline.choice import (
    Choice,
    choose_by_buffers,
    choose_by_labels,
    harm,
    never_updated,
    nothing_needed,
    staleness,
    told_harm,
)
from varshift_cli.pipeline.crossfit import METHODS, cross_fit, outputs_after, statistics_by
from varshift_cli.pipeline.measured import populations_of
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.records import Batch, Describe, Report
from varshift_cli.remedies import Workload

HELD_OUT = "held-out fifths"
_USUAL_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Other data to judge on, with the outputs of today.

    Attributes:
        name: As shown beside a figure.
        batches: What was drawn.
        judge: Of outputs on them.
        outputs: Of the network as it is.
        description: What was drawn, and of what; ``None`` where it is the calibration data.
    """

    name: str
    batches: Sequence[Batch]
    judge: Judge
    outputs: Tensor | None
    description: str | None = None

    def unscored(self) -> str | None:
        """Why targets that are there score nothing; ``None`` where there are none."""
        if not any(batch.labels is not None for batch in self.batches):
            return None
        if self.judge.targets is None:
            return "not every batch has them as a tensor of the same shape"
        return misfit(self.outputs, self.judge.targets)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known before a repair is chosen.

    Attributes:
        measured: The scan's passes.
        report: And what was concluded from them.
        work: What would be repaired, on all calibration batches.
        judge: Of outputs on the calibration data.
        held_out: Other data, which then judge instead.
        regroup: Whether the batches were cut by varshift.
        batch_size: Of training where it was told, else as the data are cut; ``None`` for uneven
            batches.
        whole: Whether the model takes batches of one size only.
    """

    measured: Measurement
    report: Report
    work: Workload
    judge: Judge
    held_out: HeldOut | None = None
    regroup: bool = False
    batch_size: int | None = None
    whole: bool = False

    @property
    def samples(self) -> int:
        """In all calibration batches."""
        return sum(batch.size for batch in self.work.batches)

    @property
    def ground(self) -> HeldOut:
        """What a repair is judged on: other data, else the calibration data in parts."""
        if self.held_out is not None:
            return self.held_out
        return HeldOut(HELD_OUT, self.work.batches, self.judge, self.measured.outputs["eval"])

    def as_is(self) -> tuple[Judge, Tensor] | None:
        """The judge and today's outputs, where anything can be scored."""
        judge, outputs = self.ground.judge, self.ground.outputs
        return (judge, outputs) if outputs is not None and judge.can(outputs) else None


_UNSCORED = (
    "there are targets, but no repair can be scored by them: {}; a network may have adapted to "
    "the shift, and lose by any repair: give --metric file.py:f, f(outputs, labels) -> higher is "
    "better"
)


def decide(evidence: Evidence) -> Choice:
    """The choice of ``--auto``; with a word on dropout if the model seems to have a wrong one."""
    choice = _decided(evidence)
    rivals = [rival for found in evidence.report.findings for rival in found.rivals]
    told = next((rival for rival in rivals if rival.startswith(OTHER_PROBABILITY)), None)
    if told is None or not choice.needed:
        return choice
    return replace(choice, reason=f"{choice.reason}. First see if it is {told}")


def _decided(evidence: Evidence) -> Choice:
    nothing = nothing_needed(evidence.report)
    if nothing is not None:
        return nothing
    judged, unscored = evidence.as_is(), evidence.ground.unscored()
    broken = any(finding.code == "VS202" for finding in evidence.report.findings)
    if judged is None and unscored is not None and not broken:
        return Choice(None, _UNSCORED.format(unscored))
    candidates = {} if judged is None else unseen_outputs(evidence, METHODS)
    if judged is None or not candidates:
        return _by_buffers(evidence)
    judge, as_is = judged
    choice = choose_by_labels(
        judge,
        as_is,
        candidates,
        evidence.ground.name,
        subject=_subject(evidence.report),
        by_buffers=lambda: _by_buffers(evidence),
        doubtful=bool(never_updated(evidence.report)),
    )
    if choice is None:
        return Choice(None, _UNSCORED.format(unscored))
    return choice


def _by_buffers(evidence: Evidence) -> Choice:
    size = evidence.batch_size or _USUAL_BATCH
    stale = staleness(evidence.measured, evidence.work.model, samples=evidence.samples, size=size)
    outputs = evidence.measured.outputs
    as_is, recalibrated = answers_of(outputs["eval"]), answers_of(outputs["clean"])
    corrected = None
    if as_is is not None and recalibrated is not None and stale is not None:
        corrected = _after(evidence, "correct")
    certainty = Certainty(as_is, recalibrated, answers_of(corrected))
    choice = choose_by_buffers(evidence.report, stale, certainty)
    if choice.method is None:
        return choice
    after = corrected if choice.method == "correct" else _after(evidence, choice.method)
    lost = _harm_in_sample(evidence, choice.method, after)
    if lost is not None:
        return Choice(None, lost)
    lost = adapted(evidence, choice.method, after)
    return choice if lost is None else Choice(None, f"{lost}; only labels or --metric can tell")


def _harm_in_sample(evidence: Evidence, method: str, after: Tensor | None) -> str | None:
    """What a repair lowers even on the samples that its statistics come from.

    Asked beside other data alone: held-out parts of these samples would tell it themselves.
    """
    if evidence.held_out is None:
        return None
    as_is = evidence.measured.outputs["eval"]
    worse = harm(evidence.judge.compare(as_is, after, "the calibration data"))
    return None if worse is None else told_harm(method, worse)


def adapted(evidence: Evidence, method: str, after: Tensor | None = None) -> str | None:
    """Why the network seems to have adapted to the shift, so that this repair would do harm.

    Args:
        evidence: What is known.
        method: The repair.
        after: Outputs after it on the calibration data, where they are known already.
    """
    outputs = evidence.measured.outputs
    after = _after(evidence, method) if after is None else after
    found = agreement(outputs["train"], outputs["eval"], after)
    if found is None or not found.is_lost:
        return None
    return (
        f"the network seems to have adapted to the shift: {method} would take its outputs farther "
        f"from those it gives in train() (squared distance {found})"
    )


def _after(evidence: Evidence, method: str) -> Tensor | None:
    """Outputs after a repair, on the calibration data."""
    if method == "recalibrate":
        return evidence.measured.outputs["clean"]
    work = evidence.work
    try:
        new = statistics_by(method, populations_of(evidence.measured, work), work)
    except FixDeclinedError:
        return None
    return outputs_after(work, new, work.batches)


def unseen_outputs(evidence: Evidence, methods: Sequence[str]) -> Mapping[str, Tensor]:
    """Outputs after each repair on samples that its statistics were not taken from.

    Empty where the data cannot be cut into parts, or a method cannot be used.
    """
    work = evidence.work
    if evidence.held_out is None:
        folds = cut_folds(
            work.batches,
            evidence.measured.samples,
            regroup=evidence.regroup,
            whole=evidence.whole,
        )
        return cross_fit(work, folds, methods, evidence.samples) if folds else {}
    found = populations_of(evidence.measured, work)
    outputs: dict[str, Tensor] = {}
    for method in methods:
        try:
            new = statistics_by(method, found, work)
        except FixDeclinedError:
            continue
        after = outputs_after(work, new, evidence.held_out.batches)
        if after is not None:
            outputs[method] = after
    return outputs


def _subject(report: Report) -> str:
    """What the buffers look like, in a clause, or nothing."""
    fresh = never_updated(report)
    stale = [
        each.factors.stale
        for each in report.layers
        if each.factors.stale is not None and each.name not in fresh
    ]
    if report.buffers.describe is not Describe.TRAIN or not stale:
        return ""
    low, high = min(stale), max(stale)
    return f"the buffers describe the network with dropout on (stale {low:.2f}-{high:.2f}), and "
