"""Put a measurement into a report: names, wiring, causes, findings, effect, verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from varshift_cli import __version__
from varshift_cli.causes import CATALOGUE
from varshift_cli.diagnosis import (
    Observations,
    TrainingData,
    describe_buffers,
    find_causes,
    name_cause,
)
from varshift_cli.diagnosis.probed import probed_findings
from varshift_cli.gate import judge
from varshift_cli.instrument import BatchNormCatalogue, BatchNormKey, NoiseKey, display_names
from varshift_cli.instrument.borrow import Forward
from varshift_cli.instrument.facts import ModelFacts, model_facts
from varshift_cli.measurement import Measurement, effect_of, layer_record, targets_of
from varshift_cli.measurement.ordering import Order, class_labels, order_of
from varshift_cli.measurement.trials import TrainTrials
from varshift_cli.pipeline.advice import advice, wanted
from varshift_cli.pipeline.few import few_samples
from varshift_cli.pipeline.studies import Studies, Study, with_attribution, with_predictions
from varshift_cli.pipeline.unknown import (
    reasons_of_buffers,
    reasons_of_effect,
    reasons_of_layers,
    reasons_of_lists,
)
from varshift_cli.pipeline.wired import dropout_records, links_of, upstream_of
from varshift_cli.records import (
    Batch,
    BuffersRecord,
    CalibrationRecord,
    CheckpointRecord,
    DropoutRecord,
    Effect,
    Finding,
    LayerRecord,
    Remedy,
    Report,
    Skipped,
)
from varshift_cli.remedies.selection import frozen_layers


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What was measured, beside the measurement itself."""

    catalogue: BatchNormCatalogue
    batches: Sequence[Batch]
    checkpoint: CheckpointRecord
    data: str | None
    batch_size: int | None
    seed: int
    device: torch.device
    dtype: torch.dtype
    missing_buffers: Sequence[str] = ()
    channels: bool = False
    without_noise: str | None = None
    """Why dropout was taken out of the model, so that nobody can tell what training saw."""
    notes: Sequence[str] = ()
    model: nn.Module | None = None
    """Looked at for what its modules say; a rule may have it run once more."""
    forward: Forward | None = None
    averaged: str | None = None
    """Why the weights are known to be an average, if they are."""
    in_order: bool = True
    """Whether the batches come in an order of the user's own, not dealt by varshift."""
    train_data: TrainingData | None = None
    """What was measured over ``--train-data``."""


def assemble(measured: Measurement, subject: Subject, study: Study | None = None) -> Report:
    """The report of a scan, not gated; with a study of the layers that are off, if one is given."""
    names = display_names(layer.key for layer in measured.layers)
    noises = display_names(visit.key for visit in measured.wiring.noises)
    layers = _layers(measured, subject, names, noises)
    studies = Studies() if study is None else study.run(measured, layers)
    layers = _explained(measured, layers, studies, noises)
    known = [layer for layer in measured.layers if layer.key not in measured.probe.suspect]
    dropouts = dropout_records(measured.wiring, names, noises)
    buffers, no_slope = describe_buffers(known, dropouts)
    targets = targets_of(subject.batches)
    effect, no_effect = effect_of(
        measured.outputs["eval"], measured.outputs["clean"], measured.outputs["train"], targets
    )
    always_on = sorted({key.name for key in measured.always_on})
    observed = _observed(measured, subject, layers, dropouts, buffers, effect, always_on)
    findings = (*probed_findings(measured.probe, names, always_on), *find_causes(observed))
    unknown = (
        *reasons_of_effect(effect, no_effect, measured.outputs["eval"], targets),
        *reasons_of_buffers(buffers, subject.without_noise or no_slope),
        *reasons_of_layers(measured, layers, studies, subject.without_noise),
        *reasons_of_lists(measured, modules_alone=subject.catalogue.autograd == [True]),
    )
    return Report(
        varshift_version=__version__,
        checkpoint=subject.checkpoint,
        calibration=_calibration(measured, subject),
        buffers=buffers,
        layers=layers,
        dropouts=dropouts,
        skipped=_skipped(measured, subject.catalogue),
        findings=findings,
        remedies=_remedies(findings, subject.checkpoint.path)
        | _tried(measured, findings, layers, dropouts, buffers, subject, study),
        effect=effect,
        verdict=judge(layers, None, findings),
        unknown={path: reason for path, reason in unknown if reason is not None},
        notes=_notes(subject, observed, measured.samples.count),
    )


def _explained(
    measured: Measurement,
    layers: Sequence[LayerRecord],
    studies: Studies,
    noises: Mapping[NoiseKey, str],
) -> tuple[LayerRecord, ...]:
    """The layers with what the extra passes brought."""
    return tuple(
        with_predictions(
            with_attribution(record, studies.attribution.get(layer.key), noises),
            studies.predictions.get(layer.key),
            noises,
        )
        for layer, record in zip(measured.layers, layers, strict=True)
    )


def _observed(
    measured: Measurement,
    subject: Subject,
    layers: Sequence[LayerRecord],
    dropouts: Sequence[DropoutRecord],
    buffers: BuffersRecord,
    effect: Effect | None,
    always_on: Sequence[str],
) -> Observations:
    """What causes are found from."""
    facts = ModelFacts() if subject.model is None else model_facts(subject.model)
    order = order_of(subject.batches) if subject.in_order else None
    return Observations(
        layers,
        dropouts,
        buffers,
        list(subject.catalogue.sites.values()),
        subject.missing_buffers,
        always_on,
        moments=measured.layers,
        samples=sum(batch.size for batch in subject.batches),
        effect=effect,
        skipped=[*subject.catalogue.untracked, *_by_batch(measured)],
        facts=facts,
        frozen=_frozen(subject),
        averaged=subject.averaged or _counted_average(facts),
        trials=_trials(measured, subject, order),
        order=order,
        has_classes=class_labels(subject.batches) is not None,
        train_data=subject.train_data,
    )


def _layers(
    measured: Measurement,
    subject: Subject,
    names: Mapping[BatchNormKey, str],
    noises: Mapping[NoiseKey, str],
) -> tuple[LayerRecord, ...]:
    visits = {visit.key: visit for visit in measured.wiring.batch_norms}
    records = []
    for layer in measured.layers:
        record = layer_record(layer, names[layer.key], subject.seed, with_channels=subject.channels)
        visit = visits.get(layer.key)
        if visit is not None:
            record = replace(
                record,
                location=visit.location,
                dropouts=links_of(visit, noises),
                upstream=upstream_of(visit, names),
            )
        if subject.without_noise is not None or layer.key in measured.probe.suspect:
            records.append(_without_train(record))
            continue
        records.append(replace(record, cause=name_cause(record.factors, record.level)))
    return tuple(records)


def _without_train(record: LayerRecord) -> LayerRecord:
    """A layer of a model whose dropout is gone: T is unknown, and so is the cause."""
    return replace(
        record,
        factors=replace(record.factors, stale=None, dropout=None),
        factor_intervals=replace(record.factor_intervals, stale=None, dropout=None),
    )


def _notes(subject: Subject, observed: Observations, groups: int) -> tuple[str, ...]:
    few = few_samples(observed.layers, observed.samples, groups)
    ordered = None if observed.order is None else _ordered(observed.order, observed.samples)
    return tuple(note for note in (subject.without_noise, *subject.notes, ordered, few) if note)


def _ordered(order: Order, samples: int) -> str:
    """What an order of the calibration batches means: a hint at that of training, no more."""
    how = (
        "nearly each holds one class"
        if order.by_class
        else f"between them the input varies {order.ratio:.1f} times as much as between mixed ones"
    )
    return (
        f"the batches come in an order ({how}): if there are more than these {samples:,} samples, "
        "shuffle them, or the figures stand for their beginning alone; and a network trained on "
        "batches in such an order has wrong statistics (VS302)"
    )


def _skipped(measured: Measurement, catalogue: BatchNormCatalogue) -> tuple[Skipped, ...]:
    return (
        *catalogue.untracked,
        *(Skipped(name, catalogue.why_unreached(name)) for name in measured.unreached),
        *_by_batch(measured),
    )


def _by_batch(measured: Measurement) -> list[Skipped]:
    return [
        Skipped(name, "normalises by the batch even in eval(): its buffers are not used")
        for name in sorted(measured.batch_statistics)
    ]


def _counted_average(facts: ModelFacts) -> str | None:
    count = facts.averaged_count
    return None if count is None else f"of {count} steps, by n_averaged"


def _frozen(subject: Subject) -> frozenset[str]:
    if subject.model is None:
        return frozenset()
    return frozen_layers(subject.model, subject.catalogue)


def _trials(measured: Measurement, subject: Subject, order: Order | None) -> TrainTrials | None:
    if subject.model is None:
        return None
    return TrainTrials(
        subject.model,
        subject.catalogue,
        subject.batches,
        measured.samples,
        subject.seed,
        subject.forward,
        order,
    )


def _calibration(measured: Measurement, subject: Subject) -> CalibrationRecord:
    return CalibrationRecord(
        data=subject.data,
        samples=sum(batch.size for batch in subject.batches),
        batch_size=subject.batch_size,
        batches=len(subject.batches),
        groups=measured.samples.count,
        windows=measured.procedure.windows,
        seed=subject.seed,
        device=subject.device.type,
        dtype=str(subject.dtype).removeprefix("torch."),
        torch_version=torch.__version__,
        method=measured.procedure.method,
    )


def _tried(
    measured: Measurement,
    findings: Sequence[Finding],
    layers: Sequence[LayerRecord],
    dropouts: Sequence[DropoutRecord],
    buffers: BuffersRecord,
    subject: Subject,
    study: Study | None,
) -> dict[str, tuple[Remedy, ...]]:
    """Remedies for dropout, ranked by the shift that they were found to leave."""
    codes = wanted(findings)
    if study is None or not codes:
        return {}
    trials = study.try_remedies(measured, dropouts, buffers)
    if trials is None:
        return {}
    reaching = [each for each in dropouts if each.reaches]
    return dict.fromkeys(codes, advice(trials, reaching, layers, subject.checkpoint.path))


def _remedies(findings: Sequence[Finding], path: str | None) -> dict[str, tuple[Remedy, ...]]:
    return {
        finding.code: CATALOGUE[finding.code].remedies_for(path)
        for finding in findings
        if finding.code in CATALOGUE
    }
