"""Extra train passes that a rule may ask for to decide between causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from varshift_cli.instrument import BatchNormCatalogue, BatchNormKey, borrowed
from varshift_cli.instrument.borrow import Forward
from varshift_cli.instrument.calls import BatchNormCall
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.measurement.ordering import Order
from varshift_cli.measurement.passes import forget, run_eval, run_population
from varshift_cli.measurement.regimes import PopulationRegime
from varshift_cli.measurement.samples import Samples
from varshift_cli.measurement.unmixed import Unmixed, UnmixedRegime, plan_unmixed
from varshift_cli.records import Batch
from varshift_cli.statistics import GroupMoments


@dataclass(frozen=True, slots=True, eq=False)
class TrainTrials:
    """Train passes over the calibration batches, with one thing changed."""

    model: nn.Module
    catalogue: BatchNormCatalogue
    batches: Sequence[Batch]
    samples: Samples
    seed: int
    forward: Forward | None = None
    order: Order | None = None
    """In which the batches come, where they come in one."""

    def unmixed(self) -> Unmixed | None:
        """What training on unmixed batches gathers; ``None`` where nothing tells kinds apart."""
        plan = plan_unmixed(self.batches, self.samples, self.order)
        if plan is None:
            return None
        regime = UnmixedRegime(plan, seed=self.seed)
        with borrowed(self.model, self.catalogue, self.forward) as instrumented:
            try:
                run_eval(instrumented, plan.batches, regime, forget)
            except ForwardRaised:
                return None  # it may refuse batches of other sizes
        return regime.gathered()

    def with_eps(self, eps: float) -> Mapping[BatchNormKey, GroupMoments]:
        """T's moments if every BN ran with this eps."""
        return self._pass(self.samples, eps)

    def _pass(self, samples: Samples, eps: float | None) -> Mapping[BatchNormKey, GroupMoments]:
        regime = _OtherEps(samples, noise_on=True, seed=self.seed)
        regime.other_eps = eps
        with borrowed(self.model, self.catalogue, self.forward) as instrumented:
            try:
                run_population(instrumented, self.batches, regime, lambda _index, _output: None)
            except ForwardRaised:
                return {}  # it ran before: a trial that cannot be repeated decides nothing
        return regime.gathered.moments


class _OtherEps(PopulationRegime):
    """The train pass, with another eps in every BN if one is set."""

    other_eps: float | None = None

    def normalise(self, call: BatchNormCall) -> Tensor:
        """As the train pass does, with that eps."""
        if self.other_eps is not None:
            call = replace(call, eps=self.other_eps)
        return super().normalise(call)
