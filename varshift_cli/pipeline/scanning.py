"""``varshift scan``: from a request to a report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from varshift_cli.diagnosis import TrainingData
from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.loading import StateDict
from varshift_cli.loading.containers.selection import names_an_average
from varshift_cli.measurement import Measurement, check_batches, measure
from varshift_cli.pipeline.advice import without_harm
from varshift_cli.pipeline.assembly import Subject, assemble
from varshift_cli.pipeline.effects import judge_of, with_metric
from varshift_cli.pipeline.inputs import Inputs, load_other_data, open_inputs
from varshift_cli.pipeline.studies import Study
from varshift_cli.records import Progress, Report, ScanRequest, SilentProgress


def scan_checkpoint(request: ScanRequest, progress: Progress | None = None) -> Report:
    """Measure a checkpoint; nothing is written.

    Args:
        request: What to scan, and with what.
        progress: Told of each stage.

    Raises:
        VarshiftError: Something is wrong with the user's files, options or model.
    """
    progress = progress or SilentProgress()
    inputs = open_inputs(request, request.train_data)
    return look_at(inputs, request, progress).report(progress, diagnose=True)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one draw of samples showed, before causes are told apart."""

    inputs: Inputs
    request: ScanRequest
    catalogue: BatchNormCatalogue
    measured: Measurement

    def report(self, progress: Progress, *, diagnose: bool) -> Report:
        """The report on it.

        Args:
            progress: Told of each stage.
            diagnose: Also make the further passes that only tell causes apart: with single
                dropouts, and over the data of training, as far as the request has them.
        """
        inputs, request = self.inputs, self.request
        subject = subject_of(inputs, request, self.catalogue)
        study = None
        if diagnose and request.train_data is not None:
            training = _measure_train_data(inputs, request.train_data, request, progress)
            subject = replace(subject, train_data=training)
        if diagnose and request.attribute:
            study = Study(
                inputs.model,
                self.catalogue,
                inputs.data.batches,
                request.seed,
                progress,
                inputs.forward,
                inputs.data.regroupable,
                inputs.memory,
            )
        report = assemble(self.measured, subject, study)
        if inputs.metric is not None:
            report = with_metric(report, self.measured, judge_of(request, inputs, inputs.data))
        return without_harm(report)


def look_at(inputs: Inputs, request: ScanRequest, progress: Progress) -> Look:
    """Measure what was opened."""
    check_batches(inputs.data.batches)
    catalogue = inputs.find_batch_norms()
    measured = measure(
        inputs.model,
        catalogue,
        inputs.data.batches,
        seed=request.seed,
        progress=progress,
        forward=inputs.forward,
        regroup=inputs.data.regroupable,
        train_batch_size=request.train_batch_size,
        memory=inputs.memory,
    )
    return Look(inputs, request, catalogue, measured)


def _measure_train_data(
    inputs: Inputs, train_data: str, request: ScanRequest, progress: Progress
) -> TrainingData:
    """The same passes over ``--train-data``."""
    data = load_other_data(request, train_data, inputs, "--train-data", progress)
    check_batches(data.batches)
    measured = measure(
        inputs.model,
        inputs.find_batch_norms(),
        data.batches,
        seed=request.seed,
        progress=progress,
        forward=inputs.forward,
        regroup=data.regroupable,
        memory=inputs.memory,
    )
    return TrainingData(
        {layer.key: layer for layer in measured.layers},
        sum(batch.size for batch in data.batches),
    )


def subject_of(inputs: Inputs, request: ScanRequest, catalogue: BatchNormCatalogue) -> Subject:
    """What the report says of the inputs."""
    return Subject(
        catalogue=catalogue,
        batches=inputs.data.batches,
        checkpoint=inputs.record(),
        data=inputs.data.description,
        batch_size=inputs.data.batch_size,
        seed=request.seed,
        device=inputs.device,
        dtype=dtype_of(inputs.model),
        missing_buffers=inputs.built.missing_buffers,
        channels=request.channels,
        without_noise=inputs.built.without_noise,
        notes=inputs.notes,
        model=inputs.model,
        forward=inputs.forward,
        averaged=averaging_of(inputs.state),
        in_order=not inputs.data.regroupable,
    )


def averaging_of(state: StateDict) -> str | None:
    """Why the weights of a file are known to be an average, if they are."""
    if names_an_average(state.key):
        return f"the state dict is named {state.key}"
    if any(name.rpartition(".")[2] == "n_averaged" for name in state.tensors):
        return "the file counts what was averaged: n_averaged"
    return None


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the first floating parameter or buffer; float32 without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32
