"""One measurement: wiring, then the regimes C, T and E over the same batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from varshift_cli.instrument import (
    BatchNormCatalogue,
    BatchNormKey,
    Instrumented,
    NoiseKey,
    Wiring,
    borrowed,
)
from varshift_cli.instrument.borrow import Forward, device_of
from varshift_cli.instrument.failures import told_forward_errors
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.instrument.prefix import Carrier
from varshift_cli.instrument.probing import Probe, probe
from varshift_cli.measurement.layers import LayerMoments
from varshift_cli.measurement.outputs import Outputs
from varshift_cli.measurement.passes import (
    Plan,
    Procedure,
    plan_join,
    plan_passes,
    run_eval,
    run_population,
    wire,
)
from varshift_cli.measurement.regimes import EvalRegime, PopulationRegime
from varshift_cli.measurement.regroup import join_batches
from varshift_cli.measurement.samples import Samples, identify
from varshift_cli.measurement.small_batches import (
    BatchRegime,
    BatchVariances,
    batches_of_training,
)
from varshift_cli.measurement.unmeasurable import nothing_to_measure
from varshift_cli.records import Batch, Progress, stage


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Everything the passes brought, before any judgement.

    Attributes:
        layers: In execution order.
        wiring: Of one small forward.
        samples: How samples were keyed and grouped.
        procedure: How the population passes were carried out.
        always_on: Noise that ignores eval(), with its p.
        batch_statistics: BN that normalise by the batch even in eval().
        unreached: BN that no batch reached.
        outputs: Model outputs of ``eval``, ``clean`` and ``train``, joined, or None.
        probe: What small forwards with other seeds, and with every flag in train, showed.
        join: How many batches went through the population passes together.
    """

    layers: tuple[LayerMoments, ...]
    wiring: Wiring
    samples: Samples
    procedure: Procedure
    always_on: Mapping[NoiseKey, float | None]
    batch_statistics: frozenset[str]
    unreached: tuple[str, ...]
    outputs: Mapping[str, Tensor | None]
    join: int = 1
    probe: Probe = field(default_factory=Probe)


def measure(
    model: nn.Module,
    catalogue: BatchNormCatalogue,
    batches: Sequence[Batch],
    *,
    seed: int,
    progress: Progress,
    forward: Forward | None = None,
    regroup: bool = False,
    train_batch_size: int | None = None,
    memory: int | None = None,
) -> Measurement:
    """Run all regimes; the model is given back as it was found.

    Args:
        model: On its device; flags and buffers are left as they are.
        catalogue: Its BN.
        batches: Calibration batches.
        seed: Of dropout masks.
        progress: Told of each pass.
        forward: A user's own way of calling the model.
        regroup: Whether small batches may be joined where the figures do not depend on it.
        train_batch_size: Batch size of training, to tell apart what it does (factor *batch*).
        memory: Bytes that parked forwards may hold; half of what is free by default.

    Raises:
        UsageError: No batch of ``train_batch_size`` can be made of the samples.
        NothingToMeasureError: No BN with running statistics was reached.
        ForwardError: The model's forward raised.
    """
    samples = identify(batches, device_of(model))
    training = None
    if train_batch_size is not None:
        training = batches_of_training(batches, samples, train_batch_size)
    with (
        told_forward_errors(model, batches),
        borrowed(model, catalogue, forward) as instrumented,
    ):
        return _Measuring(
            instrumented,
            catalogue,
            batches,
            samples,
            seed,
            progress,
            regroup=regroup,
            memory=memory,
        ).run(training)


class _Measuring:
    """The passes in order; the clean pass first, since it tells whether T differs from C."""

    def __init__(
        self,
        instrumented: Instrumented,
        catalogue: BatchNormCatalogue,
        batches: Sequence[Batch],
        samples: Samples,
        seed: int,
        progress: Progress,
        *,
        regroup: bool,
        memory: int | None,
    ) -> None:
        self._regroup = regroup
        self._memory = memory
        self._instrumented = instrumented
        self._catalogue = catalogue
        self._batches = batches
        self._samples = samples
        self._seed = seed
        self._progress = progress
        self._outputs = {name: Outputs() for name in ("eval", "clean", "train")}

    def run(self, training: tuple[Sequence[Batch], Samples] | None) -> Measurement:
        wiring, shown = wire(self._instrumented, self._batches)
        if not self._catalogue.sites:
            raise nothing_to_measure(self._catalogue)
        join = self._join_factor(wiring, shown)
        joined = join_batches(self._batches, self._samples, join)
        try:
            deployed = self._deployed(joined)
        except ForwardRaised:
            if join == 1:
                raise
            # A forward may refuse a larger batch; if not, the error names the user's own batch.
            join, joined = 1, (self._batches, self._samples)
            self._outputs["eval"].forget()
            deployed = self._deployed(joined)
        plan = plan_passes(self._instrumented, joined[0], wiring, self._memory)
        recorder, player = plan.carriers(wiring)
        clean, procedure = self._population("clean", joined, plan, recorder, noise_on=False)
        train = clean
        if clean.noise_seen:
            train, second = self._population("train", joined, plan, player, noise_on=True)
            procedure = replace(procedure, diverged_at=procedure.diverged_at or second.diverged_at)
        return Measurement(
            self._layers(deployed, clean, train, self._as_in_training(training)),
            wiring,
            self._samples,
            procedure,
            deployed.always_on,
            frozenset(deployed.batch_statistics),
            self._unreached(deployed),
            self._all_outputs(same=train is clean),
            join,
            self._probe(shown),
        )

    def _probe(self, few: Batch) -> Probe:
        """Last, since a forward in train may change a state that the passes rely on."""
        try:
            return probe(self._instrumented, few)
        except Exception as error:
            raise ForwardRaised(0) from error

    def _deployed(self, joined: tuple[Sequence[Batch], Samples]) -> EvalRegime:
        batches, samples = joined
        regime = EvalRegime(samples, seed=self._seed)
        with stage(self._progress, "eval pass", len(batches)) as tell:
            run_eval(self._instrumented, batches, regime, self._keep("eval", tell))
        return regime

    def _as_in_training(
        self, training: tuple[Sequence[Batch], Samples] | None
    ) -> Mapping[BatchNormKey, BatchVariances]:
        if training is None:
            return {}
        batches, samples = training
        regime = BatchRegime(samples, seed=self._seed)
        with stage(self._progress, "pass at the batch size of training", len(batches)) as tell:
            run_eval(self._instrumented, batches, regime, lambda _index, _output: tell())
        return regime.gathered()

    def _population(
        self,
        name: str,
        joined: tuple[Sequence[Batch], Samples],
        plan: Plan,
        carrier: Carrier,
        *,
        noise_on: bool,
    ) -> tuple[PopulationRegime, Procedure]:
        batches, samples = joined
        # What its class freezes keeps its buffers in training too.
        kept = [name for name, site in self._catalogue.sites.items() if site.frozen]
        regime = PopulationRegime(samples, noise_on=noise_on, seed=self._seed, kept=kept)
        title = f"{name} pass, dropout {'on' if noise_on else 'off'}"
        # Forwards end all at once in lockstep; what tells of its progress is each BN call.
        with stage(self._progress, title, len(batches) * len(self._catalogue.sites)):
            regime.on_settled = self._progress.advance
            procedure = run_population(
                self._instrumented,
                batches,
                regime,
                self._keep(name, _say_nothing),
                plan=plan,
                carrier=carrier,
            )
        return regime, procedure

    def _join_factor(self, wiring: Wiring, shown: Batch) -> int:
        """How many batches to join: one, where what a batch holds matters to model or user."""
        by_batch = any(visit.batch_statistics for visit in wiring.batch_norms)
        if not self._regroup or by_batch or self._catalogue.untracked or shown is self._batches[0]:
            return 1
        return plan_join(self._instrumented, self._batches, wiring, self._memory)

    def _keep(self, name: str, tell: Callable[[], None]) -> Callable[[int, Any], None]:
        def keep(index: int, output: Any) -> None:
            self._outputs[name].keep(index, output)
            tell()

        return keep

    def _layers(
        self,
        deployed: EvalRegime,
        clean: PopulationRegime,
        train: PopulationRegime,
        training: Mapping[BatchNormKey, BatchVariances],
    ) -> tuple[LayerMoments, ...]:
        layers = []
        for key, moments in deployed.gathered.moments.items():
            if key in clean.gathered.moments and key in train.gathered.moments:
                layers.append(
                    LayerMoments(
                        key,
                        self._catalogue.sites[key.name],
                        deployed.eps[key],
                        train.gathered.moments[key],
                        clean.gathered.moments[key],
                        moments,
                        training.get(key),
                    )
                )
        if not layers:
            switched = self._instrumented.stack.left_in_train()
            raise nothing_to_measure(self._catalogue, deployed.batch_statistics, switched)
        return tuple(layers)

    def _unreached(self, deployed: EvalRegime) -> tuple[str, ...]:
        reached = {key.name for key in deployed.gathered.moments} | deployed.batch_statistics
        return tuple(name for name in self._catalogue.sites if name not in reached)

    def _all_outputs(self, *, same: bool) -> dict[str, Tensor | None]:
        total = sum(batch.size for batch in self._batches)
        joined = {name: kept.joined(total) for name, kept in self._outputs.items()}
        if same:
            joined["train"] = joined["clean"]
        return joined


def _say_nothing() -> None:
    """The stage is told of otherwise."""
