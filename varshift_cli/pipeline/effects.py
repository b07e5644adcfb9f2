"""The user's own figure in each regime: ``--metric``."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from varshift_cli.loading import LoadedData
from varshift_cli.measurement import Measurement, labels_of
from varshift_cli.pipeline.inputs import Inputs
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.records import RegimeScores, Report, ScanRequest


def judge_of(request: ScanRequest, inputs: Inputs, data: LoadedData) -> Judge:
    """The judge of outputs on some data: by ``--metric`` where there is one, and by labels."""
    name = (request.metric or "").rpartition(":")[2] or "metric"
    labels = labels_of(data.batches) if inputs.metric is None else _any_labels(data)
    return Judge(labels, inputs.metric, name)


def with_metric(report: Report, measured: Measurement, judge: Judge) -> Report:
    """The report with the metric as it is, recalibrated and with dropout on.

    Raises:
        UsageError: The metric raised, or returned no number.
    """
    if report.effect is None:
        reason = report.unknown.get("effect", "the outputs could not be compared")
        return replace(report, unknown={**report.unknown, "effect.metric": reason})
    found = {
        name: None if outputs is None else judge.value(outputs)
        for name, outputs in measured.outputs.items()
    }
    scores = RegimeScores(found["eval"], found["clean"], found["train"])
    effect = replace(report.effect, metric=scores, metric_name=judge.metric_name)
    return replace(report, effect=effect)


def _any_labels(data: LoadedData) -> Tensor | None:
    """Labels of any kind, as a metric may want them; ``None`` if a batch has none."""
    labels = [each.labels for each in data.batches if isinstance(each.labels, Tensor)]
    return torch.cat(labels).cpu() if len(labels) == len(data.batches) else None
