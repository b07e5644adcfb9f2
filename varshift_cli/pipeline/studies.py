"""The passes that explain a measurement: which dropout moves which layer, and by which formula.

They cost extra, so they are run where a layer is beyond *fine* and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from varshift_cli.instrument import (
    BatchNormCatalogue,
    BatchNormKey,
    NoiseKey,
    borrowed,
    display_names,
)
from varshift_cli.instrument.borrow import Forward
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.measurement import Measurement
from varshift_cli.measurement.attribution import LayerAttribution, attribute
from varshift_cli.measurement.comparison import Comparison
from varshift_cli.measurement.comparison import Subject as Attributed
from varshift_cli.measurement.few import few_samples
from varshift_cli.records import (
    AttributionShare,
    Batch,
    BuffersRecord,
    Describe,
    DropoutRecord,
    LayerRecord,
    Level,
    Prediction,
    Progress,
    stage,
)
from varshift_cli.remedies.selection import frozen_layers
from varshift_cli.remedies.trials import Bench, Trials, passes, try_remedies

_NOT_FOLLOWED = "its way to the layer could not be followed"

TRIAL_SAMPLES = 128
"""Samples on which remedies are tried."""


@dataclass(frozen=True, slots=True)
class Studies:
    """What the extra passes brought."""

    attribution: Mapping[BatchNormKey, LayerAttribution] = field(default_factory=dict)
    predictions: Mapping[BatchNormKey, Mapping[NoiseKey, Comparison]] = field(default_factory=dict)
    no_attribution: str | None = "it was not asked for"
    """Why layers without an entry have no attribution."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """How to run the extra passes, once it is known which layers are off."""

    model: nn.Module
    catalogue: BatchNormCatalogue
    batches: Sequence[Batch]
    seed: int
    progress: Progress
    forward: Forward | None = None
    regroup: bool = False
    memory: int | None = None
    """Bytes that parked forwards may hold; half of what is free by default."""

    def run(self, measured: Measurement, layers: Sequence[LayerRecord]) -> Studies:
        """Explain the layers that are beyond *fine*.

        Where the model's forward raises in these passes only (a model recorded for one batch size
        takes no other), the scan stands without them.
        """
        totals = _totals(measured, layers)
        if not totals:
            return Studies(no_attribution=_why_not(measured))
        try:
            with borrowed(self.model, self.catalogue, self.forward) as instrumented:
                found = attribute(
                    Attributed(
                        instrumented,
                        self.batches,
                        measured.samples,
                        measured.layers,
                        measured.wiring,
                        self.seed,
                        self.regroup,
                        self.memory,
                    ),
                    totals,
                    self.progress,
                )
        except ForwardRaised as raised:
            return Studies(no_attribution=f"a pass with single dropouts failed: {_said(raised)}")
        return Studies(found.layers, found.predictions, _why_not(measured))

    def try_remedies(
        self, measured: Measurement, dropouts: Sequence[DropoutRecord], buffers: BuffersRecord
    ) -> Trials | None:
        """The shift that every remedy would leave.

        ``None`` where no dropout is to be blamed, or where the model's forward raises in these
        passes only.
        """
        reaching = {key for keys in measured.wiring.sources().values() for key in keys}
        named = display_names(visit.key for visit in measured.wiring.noises)
        names = {named[key] for key in reaching if key in named}
        blamed = [each for each in dropouts if each.name in names]
        if not blamed or buffers.describe is Describe.CLEAN:
            return None
        correctable = buffers.describe is Describe.TRAIN
        batches, samples, count = few_samples(
            self.batches, measured.samples, TRIAL_SAMPLES, regroup=self.regroup
        )
        most = passes(blamed, correctable=correctable)
        self.progress.remark(
            f"remedies: up to {most} passes over {count:,} samples (--no-attribute leaves them out)"
        )
        frozen = frozen_layers(self.model, self.catalogue)
        try:
            with (
                stage(self.progress, "trying remedies", most) as tell,
                borrowed(self.model, self.catalogue, self.forward) as instrumented,
            ):
                bench = Bench(
                    instrumented,
                    self.catalogue,
                    batches,
                    samples,
                    (self.batches, measured.samples),
                    {layer.key: layer.clean for layer in measured.layers},
                    {layer.key: layer.train for layer in measured.layers},
                    self.seed,
                    measured.wiring,
                    frozen,
                    tell,
                    self.memory,
                )
                return try_remedies(bench, blamed, correctable=correctable)
        except ForwardRaised as raised:
            self.progress.remark(f"remedies: not tried, as a pass failed: {_said(raised)}")
            return None


def _said(raised: ForwardRaised) -> str:
    """The first line of what the model's forward raised."""
    first = (str(raised.error).strip().splitlines() or [""])[0]
    return f"{type(raised.error).__name__}: {first}"


def with_attribution(
    record: LayerRecord, found: LayerAttribution | None, noises: Mapping[NoiseKey, str]
) -> LayerRecord:
    """The record with its shares filled in, where there are any."""
    if found is None or found.reason is not None:
        return record
    shares = tuple(
        AttributionShare(
            noises.get(key, key.name),
            share.share,
            share.error if math.isfinite(share.error) else None,
            share.second,
        )
        for key, share in found.shares.items()
    )
    return replace(record, attribution=shares, attribution_residual=found.residual)


def with_predictions(
    record: LayerRecord,
    found: Mapping[NoiseKey, Comparison] | None,
    noises: Mapping[NoiseKey, str],
) -> LayerRecord:
    """The record with what formulas say beside what was measured, for each dropout wired to it."""
    if found is None:
        return record
    named = {noises.get(key, key.name): each for key, each in found.items()}
    listed = [
        _prediction(link.name, named.pop(link.name))
        if link.name in named
        else Prediction(link.name, link.case, None, None, None, None, reason=_NOT_FOLLOWED)
        for link in record.dropouts
    ]
    listed += [_prediction(name, each) for name, each in named.items()]
    return replace(record, prediction=tuple(listed)) if listed else record


def _prediction(name: str, found: Comparison) -> Prediction:
    record = Prediction(
        name,
        found.case,
        None if found.predicted is None else math.exp(found.predicted),
        None if found.measured is None else math.exp(found.measured),
        found.error,
        found.agrees,
        reason=found.reason,
    )
    paper = found.paper
    if paper is None:
        return record
    return replace(
        record, c=paper.c, v=paper.v, rho=paper.rho, cos2=paper.cos2, d=paper.d, delta=paper.delta
    )


def _totals(measured: Measurement, layers: Sequence[LayerRecord]) -> dict[BatchNormKey, float]:
    """ln of the dropout factor of each layer that is off, in a model that dropout moves."""
    return {
        layer.key: math.log(record.factors.dropout)
        for layer, record in zip(measured.layers, layers, strict=True)
        if layer.train is not layer.clean
        and record.level not in {None, Level.FINE}
        and record.factors.dropout
    }


def _why_not(measured: Measurement) -> str:
    if all(layer.train is layer.clean for layer in measured.layers):
        return "no dropout is on in training"
    return "only layers beyond fine are attributed"
