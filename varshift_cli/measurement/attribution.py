"""Attribution: which dropout moves which BatchNorm (BN), by switching them one at a time.

The share of dropout i in a layer is the mean over live channels of ln((C+eps)/(T_i+eps)), T_i the
population statistics with dropout i alone on. Masks belong to (seed, sample, site, call), so
switching one dropout leaves the masks of all others as they are. A second opinion is half the sum
of that and of ln(T_without_i/T), what switching i off takes away. Twelve single effects of a
residual net add up to the joint one within 5 %; dropouts in series, stochastic depth and small
totals do so less well, hence the residual.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from varshift_cli.instrument import BatchNormKey, NoiseKey
from varshift_cli.instrument.calls import NoiseCall
from varshift_cli.instrument.prefix import Carrier
from varshift_cli.measurement.comparison import Comparing, Comparison, Subject, log_mean
from varshift_cli.measurement.few import few_samples
from varshift_cli.measurement.layers import LayerMoments
from varshift_cli.measurement.passes import Plan, forget, plan_passes, run_population
from varshift_cli.measurement.regimes import PopulationRegime, Switch, all_off, all_on
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch, Progress, stage
from varshift_cli.statistics import (
    GroupMoments,
)

SMALLEST_TOTAL = 0.05
"""|ln C/T| below which shares would be shares of noise."""
LARGEST_RESIDUAL = 0.25
"""|residual| / sum |share| above which single effects do not explain the joint one."""
SETTLED = 0.02
"""Standard error of a share, in ln units, at which no more samples are drawn."""

_ROUND = 128  # samples per round
_SMALLEST_ROUND = 32
_MAX_ROUNDS = 4
_BUDGET = 1.0  # of what the passes of the scan itself cost, for all rounds but the least
_WITH_SECOND = 16  # with more dropouts than this the second opinion is left out


@dataclass(frozen=True, slots=True)
class Share:
    """What one dropout does to one layer, in ln units; see the module."""

    share: float
    error: float
    """Jackknife standard error over groups of samples."""
    second: float | None = None


@dataclass(frozen=True, slots=True)
class LayerAttribution:
    """The shares of one layer, or the reason why there are none.

    ``residual`` is ln(C/T) of the whole scan less the sum of the shares.
    """

    shares: Mapping[NoiseKey, Share] = field(default_factory=dict)
    residual: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Attribution:
    """Shares of the layers that were asked for, and predictions of all that dropout reaches."""

    layers: Mapping[BatchNormKey, LayerAttribution]
    predictions: Mapping[BatchNormKey, Mapping[NoiseKey, Comparison]]


def attribute(
    subject: Subject, totals: Mapping[BatchNormKey, float], progress: Progress
) -> Attribution:
    """Attribute ln(C/T) of the given layers to single dropouts.

    Args:
        subject: The model, its calibration data, and what was measured.
        totals: ln of the dropout factor of each layer to be attributed.
        progress: Told of the cost before, and of each pass.

    Raises:
        ForwardRaised: The model raised.
    """
    sources = subject.wiring.sources()
    found: dict[BatchNormKey, LayerAttribution] = {}
    targets: dict[BatchNormKey, float] = {}
    for key, total in totals.items():
        reaching = sources.get(key, frozenset())
        if abs(total) < SMALLEST_TOTAL:
            found[key] = LayerAttribution(
                reason=f"dropout moves it by less than {SMALLEST_TOTAL:g} in ln"
            )
        elif not reaching:
            found[key] = LayerAttribution(reason="no dropout was seen to reach it")
        else:
            targets[key] = total
    wanted = sorted({noise for key in targets for noise in sources[key]})
    if not wanted:
        return Attribution(found, {})
    rounds = _Rounds(subject, targets, wanted, progress)
    shares = rounds.run()
    for key, total in targets.items():
        found[key] = _judged(shares[key], total)
    return Attribution(found, rounds.comparisons)


def _judged(shares: Mapping[NoiseKey, Share], total: float) -> LayerAttribution:
    residual = total - math.fsum(each.share for each in shares.values())
    size = math.fsum(abs(each.share) for each in shares.values())
    if abs(residual) > LARGEST_RESIDUAL * size:
        percent = "" if size == 0.0 else f" ({abs(residual) / size:.0%} of them)"
        return LayerAttribution(
            reason=f"single dropouts do not add up to the joint effect: {residual:+.3f} of "
            f"{total:+.3f} is left over{percent}"
        )
    ordered = sorted(shares.items(), key=lambda item: -abs(item[1].share))
    return LayerAttribution(dict(ordered), residual)


class _Rounds:
    """Rounds of passes on fresh samples, until every share is settled."""

    def __init__(
        self,
        subject: Subject,
        targets: Mapping[BatchNormKey, float],
        wanted: Sequence[NoiseKey],
        progress: Progress,
    ) -> None:
        self._subject = subject
        self._targets = targets
        self._wanted = wanted
        self._progress = progress
        self._second = len(wanted) <= _WITH_SECOND
        self._layers = {layer.key: layer for layer in subject.layers}
        self.comparisons: Mapping[BatchNormKey, Mapping[NoiseKey, Comparison]] = {}
        self._rounds: list[dict[BatchNormKey, dict[NoiseKey, Share]]] = []

    def run(self) -> dict[BatchNormKey, dict[NoiseKey, Share]]:
        # The clean pass, the joint one for the second opinion, and that of the prediction.
        passes = len(self._wanted) * (2 if self._second else 1) + 2 + self._second
        total = sum(batch.size for batch in self._subject.batches)
        affordable = _BUDGET * 3 * total / passes
        size = min(_ROUND, total, max(_SMALLEST_ROUND, int(affordable)))
        rounds = max(1, min(_MAX_ROUNDS, total // size, int(affordable / size)))
        self._progress.remark(
            f"attribution: {passes} passes over {size:,} samples"
            + (f", up to {rounds} times until settled" if rounds > 1 else "")
            + " (--no-attribute leaves it out)"
        )
        with stage(self._progress, "attribution", passes * rounds):
            used = 0
            for _ in range(rounds):
                count = self._round(used, size)
                used += count
                if count == 0 or self._is_settled():
                    break
        return self._merged()

    def _round(self, skip: int, size: int) -> int:
        batches, samples, count = few_samples(
            self._subject.batches, self._subject.samples, size, skip=skip,
            regroup=self._subject.regroup,
        )  # fmt: skip
        if not batches:
            return 0
        subject = self._subject
        plan = plan_passes(subject.instrumented, batches, subject.wiring, subject.memory)
        # With a single dropout on a pass repeats the clean one up to there, with a single one off
        # the joint one.
        recorder, as_clean = plan.repeatable()
        clean = self._pass(batches, samples, plan, all_off, recorder)
        comparing = None
        if not self._rounds:
            comparing = Comparing(self._subject, self._layers, clean)
            comparing.predict(batches, samples)
            self._progress.advance()
            self.comparisons = comparing.found
        recorder, as_joint = plan.repeatable()
        joint = self._pass(batches, samples, plan, all_on, recorder) if self._second else None
        found: dict[BatchNormKey, dict[NoiseKey, Share]] = {key: {} for key in self._targets}
        for noise in self._wanted:
            alone = self._pass(batches, samples, plan, _only(noise), as_clean())
            rest = (
                self._pass(batches, samples, plan, _all_but(noise), as_joint()) if joint else None
            )
            if comparing is not None:
                comparing.compare(noise, alone)
            for key in self._targets:
                layer = self._layers[key]
                share = _share(layer, clean[key], alone[key])
                if share.share == 0.0:
                    continue  # it does not reach this layer: the passes are equal to the last bit
                if joint is not None and rest is not None:
                    off = log_mean(layer, rest[key], joint[key])[0]
                    share = replace(share, second=(share.share + off) / 2.0)
                found[key][noise] = share
        self._rounds.append(found)
        return count

    def _pass(
        self,
        batches: Sequence[Batch],
        samples: Samples,
        plan: Plan,
        switch: Switch,
        carrier: Carrier,
    ) -> Mapping[BatchNormKey, GroupMoments]:
        regime = PopulationRegime(samples, noise_on=switch, seed=self._subject.seed)
        run_population(
            self._subject.instrumented, batches, regime, forget, plan=plan, carrier=carrier
        )
        self._progress.advance()
        return regime.gathered.moments

    def _is_settled(self) -> bool:
        return all(
            share.error <= SETTLED
            for shares in self._merged().values()
            for share in shares.values()
        )

    def _merged(self) -> dict[BatchNormKey, dict[NoiseKey, Share]]:
        """Means over rounds; a dropout that a round did not see to reach a layer counts as 0."""
        return {
            key: {
                noise: _mean([each[key].get(noise) for each in self._rounds])
                for noise in self._wanted
                if any(noise in each[key] for each in self._rounds)
            }
            for key in self._targets
        }


def _mean(shares: Sequence[Share | None]) -> Share:
    present = [share for share in shares if share is not None]
    count = len(shares)
    seconds = [share.second for share in present if share.second is not None]
    return Share(
        math.fsum(share.share for share in present) / count,
        math.sqrt(math.fsum(share.error**2 for share in present)) / count,
        math.fsum(seconds) / count if seconds else None,
    )


def _share(layer: LayerMoments, clean: GroupMoments, alone: GroupMoments) -> Share:
    return Share(*log_mean(layer, clean, alone))


def _only(noise: NoiseKey) -> Switch:
    def switch(call: NoiseCall) -> NoiseCall | None:
        return call if call.key == noise else None

    return switch


def _all_but(noise: NoiseKey) -> Switch:
    def switch(call: NoiseCall) -> NoiseCall | None:
        return None if call.key == noise else call

    return switch
