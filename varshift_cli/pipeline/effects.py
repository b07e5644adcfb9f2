"""The user's own figure in each regime: ``--metric``."""

from __future__ import annotations

from dataclasses import replace

from varshift_cli.loading import LoadedData
from varshift_cli.measurement import Measurement, targets_of
from varshift_cli.pipeline.inputs import Inputs
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.records import RegimeScores, Report, ScanRequest


def judge_of(request: ScanRequest, inputs: Inputs, data: LoadedData) -> Judge:
    """The judge of outputs on some data: by ``--metric`` where there is one, and by targets."""
    name = (request.metric or "").rpartition(":")[2] or "metric"
    return Judge(targets_of(data.batches), inputs.metric, name)


def with_metric(report: Report, measured: Measurement, judge: Judge) -> Report:
    """The report with the metric as it is, recalibrated and with dropout on.

    Raises:
        UsageError: The metric raised, returned no number, or falls where outputs get better.
    """
    if report.effect is None:
        reason = report.unknown.get("effect", "the outputs could not be compared")
        return replace(report, unknown={**report.unknown, "effect.metric": reason})
    eval_outputs = measured.outputs["eval"]
    if eval_outputs is not None:
        judge.refuse_wrong_sign(eval_outputs)
    found = {
        name: None if outputs is None else judge.value(outputs)
        for name, outputs in measured.outputs.items()
    }
    scores = RegimeScores(found["eval"], found["clean"], found["train"])
    compared = judge.compare(eval_outputs, measured.outputs["clean"], "")
    effect = replace(
        report.effect,
        metric=scores,
        metric_name=judge.metric_name,
        metric_interval=judge.interval(eval_outputs),
        gain=compared[0].difference if compared else None,
    )
    return replace(report, effect=effect)
