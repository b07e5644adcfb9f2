"""Try remedies in memory: the shift that would result, with today's weights.

A remedy that needs training is tried by what training would gather with it: T', the population
statistics with the noise as the remedy has it, become the running statistics, and an eval pass
with them gives the shift. What training would make of the weights is not tried. Nothing of the
model is changed; passes run on few samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from varshift_cli.errors import FixDeclinedError
from varshift_cli.instrument import BatchNormCatalogue, BatchNormKey, Instrumented, Wiring
from varshift_cli.instrument.calls import BatchNormCall, DropoutCall, NoiseCall
from varshift_cli.instrument.noise import DROPOUT, GAUSSIAN_DROPOUT, UOUT
from varshift_cli.measurement.passes import forget, plan_passes, run_eval, run_population
from varshift_cli.measurement.regimes import (
    EvalRegime,
    PopulationRegime,
    Switch,
    all_off,
)
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import LEVEL_BOUNDS, Batch, DropoutRecord, Level
from varshift_cli.remedies.correct import corrected
from varshift_cli.remedies.populations import Populations
from varshift_cli.remedies.selection import Selection, select_layers
from varshift_cli.statistics import (
    GroupMoments,
    Population,
    Resampling,
    live_channels,
    shift_estimate,
)

BETA = 0.1
"""Of the Uout that is tried: the smallest that Li et al. try (table 6)."""
_FRACTIONS = (0.5, 0.25, 0.125)
"""Of every p, for "drop less": the largest that leaves no layer above *mild* is proposed."""
_ENOUGH = LEVEL_BOUNDS[Level.MILD]


@dataclass(frozen=True, slots=True)
class Result:
    """The shift that a remedy leaves: of the worst layer, and the mean over layers."""

    worst: float
    mean: float


@dataclass(frozen=True, slots=True)
class Trials:
    """What was tried; ``None`` where a remedy does not apply.

    Attributes:
        fraction: Of every p, in ``lower``.
        samples: How many the passes ran on; correction was tried on all.
        everything: How many all are.
    """

    recalibrate: Result | None
    correct: Result | None
    move: Result
    remove: Result
    uout: Result | None
    gaussian: Result | None
    by_element: Result | None
    lower: Result | None
    fraction: float
    samples: int
    everything: int


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What trials run on.

    Attributes:
        instrumented: The model.
        catalogue: Its BN; the running buffers are R.
        batches: Few samples.
        samples: Their keys and groups.
        everything: All batches, and their samples: what correction is tried on, since its buffers
            describe all of the training data and not these few.
        clean: C of every BN call, over everything.
        train: T of every BN call, over everything.
        seed: Of the noise.
        wiring: Which dropout reaches which BN.
        frozen: Names of BN that no repair writes.
        tell: Told of each pass.
        memory: Bytes that parked forwards may hold; half of what is free by default.
    """

    instrumented: Instrumented
    catalogue: BatchNormCatalogue
    batches: Sequence[Batch]
    samples: Samples
    everything: tuple[Sequence[Batch], Samples]
    clean: Mapping[BatchNormKey, GroupMoments]
    train: Mapping[BatchNormKey, GroupMoments]
    seed: int
    wiring: Wiring
    frozen: Collection[str]
    tell: Callable[[], None]
    memory: int | None = None


def try_remedies(bench: Bench, dropouts: Sequence[DropoutRecord], *, correctable: bool) -> Trials:
    """Try every remedy that applies.

    Args:
        bench: The model and few samples.
        dropouts: The noise sites that reach a BN.
        correctable: Whether the buffers were gathered with dropout on.

    Raises:
        ForwardRaised: The model raised.
    """
    trying = _Trying(bench)
    ops = [each for each in dropouts if each.kind in _DROPOUT_OPS]
    channels = any(each.kind.startswith("feature_") for each in ops)
    healthy = trying.with_noise(all_off)
    lower, fraction = trying.lower() if ops else (None, 1.0)
    return Trials(
        recalibrate=trying.recalibrated(),
        correct=trying.corrected() if correctable else None,
        move=healthy,
        remove=healthy,
        uout=trying.with_noise(_as(lambda call: replace(call, kind=UOUT, p=BETA))) if ops else None,
        gaussian=trying.with_noise(_as(_gaussian)) if ops else None,
        by_element=trying.with_noise(_as(_by_element)) if channels else None,
        lower=lower,
        fraction=fraction,
        samples=sum(batch.size for batch in bench.batches),
        everything=sum(batch.size for batch in bench.everything[0]),
    )


def passes(dropouts: Sequence[DropoutRecord], *, correctable: bool) -> int:
    """How many passes :func:`try_remedies` needs at most."""
    ops = [each for each in dropouts if each.kind in _DROPOUT_OPS]
    channels = any(each.kind.startswith("feature_") for each in ops)
    swaps = 2 * (2 + channels + len(_FRACTIONS)) if ops else 0
    return 3 + correctable + swaps


_DROPOUT_OPS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


class _Trying:
    """The passes, and the statistics they share."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._plan = plan_passes(bench.instrumented, bench.batches, bench.wiring, bench.memory)
        self._clean = self._population(all_off)
        self._eps = self._clean.eps
        self._resampling = Resampling.of(bench.samples.count, bench.seed)

    def recalibrated(self) -> Result | None:
        """C in every buffer that a repair may write."""
        names = self._selection.names
        found = _by_name(self._clean.gathered.moments)
        return self._deployed({name: found[name] for name in names}) if names else None

    def corrected(self) -> Result | None:
        """Buffers corrected by difference, on everything."""
        bench, selection = self._bench, self._selection
        clean, train = _by_name(bench.clean), _by_name(bench.train)
        names = [name for name in selection.names if name in clean and name in train]
        if not names:
            return None
        populations = Populations(
            {name: clean[name] for name in names},
            {name: train[name] for name in names},
            {key.name: eps for key, eps in self._eps.items()},
            frozenset(key.name for key in bench.wiring.reached()),
            selection,
            self._procedure,
        )
        try:
            statistics = corrected(populations, bench.catalogue).populations
        except FixDeclinedError:
            return None
        return self._deployed(statistics, *bench.everything)

    def with_noise(self, switch: Switch) -> Result:
        """What training would gather with this noise, deployed."""
        regime = self._clean if switch is all_off else self._population(switch)
        return self._deployed(_by_name(regime.gathered.moments))

    def lower(self) -> tuple[Result, float]:
        """The largest fraction of every p that leaves no layer above *mild*, or the smallest."""
        result, fraction = Result(float("inf"), float("inf")), 1.0
        for fraction in _FRACTIONS:
            result = self.with_noise(_as(_scaled(fraction)))
            if result.worst < _ENOUGH:
                break
        return result, fraction

    @cached_property
    def _selection(self) -> Selection:
        """The BN that a repair may write."""
        return select_layers(
            self._bench.catalogue,
            Counter(key.name for key in self._clean.gathered.moments),
            batch_statistics=self._clean.batch_statistics,
            frozen=self._bench.frozen,
        )

    def _population(self, switch: Switch) -> PopulationRegime:
        bench = self._bench
        regime = PopulationRegime(bench.samples, noise_on=switch, seed=bench.seed)
        self._procedure = run_population(
            bench.instrumented, bench.batches, regime, forget, plan=self._plan
        )
        bench.tell()
        return regime

    def _deployed(
        self,
        statistics: Mapping[str, Population],
        batches: Sequence[Batch] | None = None,
        samples: Samples | None = None,
    ) -> Result:
        """The shift of every layer in eval(), with these statistics in the buffers."""
        bench = self._bench
        regime = _Deployed(samples or bench.samples, bench.seed, statistics)
        run_eval(bench.instrumented, batches or bench.batches, regime, forget)
        bench.tell()
        shifts = [
            shift
            for key, moments in regime.gathered.moments.items()
            if (shift := self._shift(key, moments, regime)) is not None
        ]
        if not shifts:
            return Result(1.0, 1.0)
        return Result(max(shifts), sum(shifts) / len(shifts))

    def _shift(self, key: BatchNormKey, moments: GroupMoments, regime: _Deployed) -> float | None:
        running = regime.running_var(key, self._bench.catalogue)
        populated = moments.populated()
        var = populated.pooled().var
        live = live_channels(running, var, regime.eps[key])
        if not bool(live.any()) or not bool(running.isfinite().all() & var.isfinite().all()):
            return None
        resampling = self._resampling
        if resampling.groups != populated.groups:
            resampling = Resampling.of(populated.groups, self._bench.seed)
        return shift_estimate(populated, running, regime.eps[key], live, resampling).shift


class _Deployed(EvalRegime):
    """As deployed, with other statistics in some buffers."""

    def __init__(self, samples: Samples, seed: int, statistics: Mapping[str, Population]) -> None:
        super().__init__(samples, seed=seed)
        self._statistics = statistics

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Gather, then normalise by the statistics tried, or by the buffers."""
        known = self._statistics.get(call.key.name)
        if call.training or known is None:
            return super().batch_norm(call, batch)
        self.eps[call.key] = call.eps
        self.gathered.add(call, batch)
        return call.normalise(*call.as_written(known.mean, known.var))

    def running_var(self, key: BatchNormKey, catalogue: BatchNormCatalogue) -> Tensor:
        """What the buffer would hold, shape (C,), float64."""
        known = self._statistics.get(key.name)
        return catalogue.sites[key.name].held_var if known is None else known.var


def _by_name(moments: Mapping[BatchNormKey, GroupMoments]) -> dict[str, Population]:
    """What training would gather in each buffer: means over the calls of one BN."""
    calls: dict[str, list[Population]] = {}
    for key, each in moments.items():
        calls.setdefault(key.name, []).append(each.pooled())
    return {name: _mean(found) for name, found in calls.items()}


def _mean(found: Sequence[Population]) -> Population:
    if len(found) == 1:
        return found[0]
    return Population(
        found[0].count,
        torch.stack([each.mean for each in found]).mean(0),
        torch.stack([each.var for each in found]).mean(0),
    )


def _as(change: Callable[[DropoutCall], DropoutCall]) -> Switch:
    """Every dropout op changed; other noise as it is."""

    def switch(call: NoiseCall) -> NoiseCall | None:
        return change(call) if isinstance(call, DropoutCall) and not call.silent else call

    return switch


def _gaussian(call: DropoutCall) -> DropoutCall:
    """sigma^2 = p / (1 - p)."""
    p = min(call.p or 0.0, 0.999)
    return replace(call, kind=GAUSSIAN_DROPOUT, p=(p / (1.0 - p)) ** 0.5)


def _by_element(call: DropoutCall) -> DropoutCall:
    return replace(call, kind=DROPOUT) if call.kind.per_channel else call


def _scaled(fraction: float) -> Callable[[DropoutCall], DropoutCall]:
    return lambda call: replace(call, p=(call.p or 0.0) * fraction)
