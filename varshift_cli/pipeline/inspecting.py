"""``varshift inspect``: which dropout reaches which BatchNorm, by one small forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from varshift_cli import __version__
from varshift_cli.instrument import (
    BatchNormCatalogue,
    BatchNormKey,
    NoiseKey,
    Wiring,
    borrowed,
    display_names,
    trace_wiring,
)
from varshift_cli.instrument.failures import told_forward_errors
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.measurement import check_batches, nothing_to_measure
from varshift_cli.measurement.passes import run_eval
from varshift_cli.measurement.regimes import EvalRegime
from varshift_cli.measurement.samples import Samples
from varshift_cli.pipeline.inputs import Inputs, open_inputs
from varshift_cli.pipeline.wired import dropout_records, links_of, upstream_of
from varshift_cli.records import (
    InspectedLayer,
    Inspection,
    Progress,
    ScanRequest,
    SilentProgress,
    Skipped,
    stage,
)
from varshift_cli.remedies.selection import frozen_layers, select_layers


def inspect_checkpoint(request: ScanRequest, progress: Progress | None = None) -> Inspection:
    """Look at a model's BatchNorm layers and dropouts; nothing is judged or written.

    Args:
        request: What to open; ``samples`` and ``batch_size`` are used as they are.
        progress: Told of the forward.

    Raises:
        NothingToMeasureError: There is no BN with running statistics that the data reach.
        VarshiftError: Something is wrong with the user's files, options or model.
    """
    progress = progress or SilentProgress()
    inputs = open_inputs(request)
    check_batches(inputs.data.batches)
    catalogue = inputs.find_batch_norms()
    wiring, deployed = _look(inputs, catalogue, progress)
    return _inspection(inputs, catalogue, wiring, deployed)


def _look(
    inputs: Inputs, catalogue: BatchNormCatalogue, progress: Progress
) -> tuple[Wiring, EvalRegime]:
    """One forward for the wiring, and one per batch to see what deployment uses."""
    batches = inputs.data.batches
    deployed = EvalRegime(Samples.anonymous(len(batches)), seed=0, grouped=False)
    with (
        stage(progress, "looking at the model", len(batches) + 1) as tell,
        told_forward_errors(inputs.model, batches),
        borrowed(inputs.model, catalogue, inputs.forward) as instrumented,
    ):
        run_eval(instrumented, batches, deployed, lambda _index, _output: tell())
        try:
            wiring = trace_wiring(instrumented, batches[0])
        except Exception as error:
            raise ForwardRaised(0) from error
        if not deployed.gathered.moments:
            switched = instrumented.stack.left_in_train()
            raise nothing_to_measure(catalogue, deployed.batch_statistics, switched)
    return wiring, deployed


def _inspection(
    inputs: Inputs, catalogue: BatchNormCatalogue, wiring: Wiring, deployed: EvalRegime
) -> Inspection:
    names = display_names(visit.key for visit in wiring.batch_norms)
    noises = display_names(visit.key for visit in wiring.noises)
    skipped, unwritten = _left_out(inputs, catalogue, deployed)
    known: Mapping[BatchNormKey | NoiseKey, str] = {**names, **noises}
    without = inputs.built.without_noise
    return Inspection(
        varshift_version=__version__,
        checkpoint=inputs.record(),
        data=inputs.data.description,
        samples=inputs.data.samples,
        device=inputs.device.type,
        layers=_layers(catalogue, wiring, deployed, names, noises),
        dropouts=dropout_records(wiring, names, noises),
        order=tuple(known[key] for key in wiring.order if key in known),
        skipped=skipped,
        unwritten=unwritten,
        always_on=tuple(sorted({key.name for key in deployed.always_on})),
        notes=(*([without] if without else []), *inputs.notes),
    )


def _layers(
    catalogue: BatchNormCatalogue,
    wiring: Wiring,
    deployed: EvalRegime,
    names: Mapping[BatchNormKey, str],
    noises: Mapping[NoiseKey, str],
) -> tuple[InspectedLayer, ...]:
    return tuple(
        InspectedLayer(
            name=names[visit.key],
            kind=catalogue.sites[visit.key.name].kind,
            num_features=catalogue.sites[visit.key.name].num_features,
            eps=deployed.eps.get(visit.key, 0.0),
            call=visit.key.call,
            location=visit.location,
            dropouts=links_of(visit, noises),
            upstream=upstream_of(visit, names),
        )
        for visit in wiring.batch_norms
    )


def _left_out(
    inputs: Inputs, catalogue: BatchNormCatalogue, deployed: EvalRegime
) -> tuple[tuple[Skipped, ...], tuple[Skipped, ...]]:
    """What ``scan`` will not measure, and what ``fix`` will not write although it is measured."""
    calls = Counter(key.name for key in deployed.gathered.moments)
    by_batch = frozenset(deployed.batch_statistics)
    chosen = select_layers(
        catalogue,
        calls,
        batch_statistics=by_batch,
        frozen=frozen_layers(inputs.model, catalogue),
    )
    unmeasured = [each for each in chosen.skipped if each.name not in calls]
    unwritten = [each for each in chosen.skipped if each.name in calls]
    return tuple(unmeasured), tuple(unwritten)
