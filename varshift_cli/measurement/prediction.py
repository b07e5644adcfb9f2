"""Prediction: what each dropout does to the next BatchNorm (BN), from the clean pass alone.

For noise m of mean 1, independent of x, and X = sum_i w_i m_i x_i (law of total variance)

    Var_train(X) = Var_test(X) + sum_ij w_i w_j Cov(m_i, m_j) E[x_i x_j]

for any x and any correlations; both cases of Li et al. follow from it. The sum is gathered in one
pass with all noise off, each BN normalising by the clean population statistics, and set beside
what the single dropout was measured to do on the same samples (see ``attribution``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from varshift_cli.instrument import BatchNormKey, Instrumented, NoiseKey
from varshift_cli.instrument.calls import BatchNormCall, NoiseCall, normalise_by_batch
from varshift_cli.instrument.following import Follower
from varshift_cli.instrument.images import Image, Lost
from varshift_cli.instrument.interception import Interception
from varshift_cli.instrument.linear_ops import Weights
from varshift_cli.instrument.lockstep import ForwardRaised
from varshift_cli.measurement.noise_sources import source_of, spread_of
from varshift_cli.measurement.paper import Quantities, Straight, Weighted, weighted
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch, Case
from varshift_cli.statistics import GroupMoments, Population, jackknife_error
from varshift_cli.statistics.intervals import SE_FLOOR, t975


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference of logs, its jackknife standard error, and Student's t for its groups."""

    value: float
    error: float
    t: float

    @property
    def is_zero(self) -> bool:
        """Whether its 95 % interval holds 0."""
        return abs(self.value) <= self.t * self.error


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What one dropout is predicted to do to one BN that it reaches.

    Attributes:
        case: As it arrives.
        reason: Why there is no prediction.
        clean: Moments of the BN's input with the noise off, by group.
        base: The same of the mean over draws; another object for noise whose mean is not 1.
        extra: Sum over values of the added variance, by group, shape (G, C), float64.
        paper: Li et al.'s quantities, where they apply.
    """

    case: Case
    reason: str | None
    clean: GroupMoments
    base: GroupMoments
    extra: Tensor | None
    paper: Quantities | None

    def log_train(self, weights: Tensor, eps: float) -> Tensor:
        """ln(T_i + eps) as predicted, shape (D, C), for groups counted ``weights[d, g]`` times."""
        assert self.extra is not None
        count = (weights @ self.base.count).unsqueeze(1)
        added = (weights @ self.extra) / count
        return torch.log(self.base.reweighted(weights)[1] + added + eps)

    def share(self, live: Tensor, eps: float) -> float | None:
        """Mean over live channels of ln((C+eps)/(T_i+eps)), as predicted."""
        if self.extra is None:
            return None
        everyone = torch.ones(1, self.clean.groups, dtype=torch.float64)
        clean = torch.log(self.clean.pooled().var + eps)
        return float((clean - self.log_train(everyone, eps)[0])[live].mean())

    def deviation(self, alone: GroupMoments, live: Tensor, eps: float) -> Deviation | None:
        """Mean over live channels of ln(predicted T_i / measured T_i).

        ``alone`` are the moments with this dropout alone on, over the same samples and groups.
        """
        if self.extra is None or alone.groups != self.clean.groups or alone.groups < 2:
            return None
        if not bool((alone.count > 0).all()):
            return None

        def apart(weights: Tensor) -> Tensor:
            measured = torch.log(alone.reweighted(weights)[1] + eps)
            return (self.log_train(weights, eps) - measured)[:, live].mean(1)

        everyone = torch.ones(1, alone.groups, dtype=torch.float64)
        left_out = 1.0 - torch.eye(alone.groups, dtype=torch.float64)
        error = max(jackknife_error(apart(left_out)), SE_FLOOR)
        return Deviation(float(apart(everyone)[0]), error, t975(alone.groups - 1))


@dataclass(slots=True, eq=False)
class _Gathered:
    """One (BN, noise) while batches come in."""

    case: Case
    reason: str | None = None
    base: GroupMoments | None = None
    extra: Tensor | None = None
    through: object = None


@dataclass(slots=True, eq=False)
class _Account:
    """Everything that a pass brings."""

    clean: dict[BatchNormKey, GroupMoments] = field(default_factory=dict)
    pairs: dict[tuple[BatchNormKey, NoiseKey], _Gathered] = field(default_factory=dict)
    straight: dict[NoiseKey, Straight] = field(default_factory=dict)
    weighted: dict[object, Weighted | None] = field(default_factory=dict)


def predict(
    instrumented: Instrumented,
    batches: Sequence[Batch],
    samples: Samples,
    statistics: Mapping[BatchNormKey, Population],
) -> dict[BatchNormKey, dict[NoiseKey, Predicted]]:
    """One pass with all noise off that adds up what each would do.

    Args:
        instrumented: The model.
        batches: The samples.
        samples: Their groups.
        statistics: By which each BN normalises: those of the clean pass over the same samples.

    Raises:
        ForwardRaised: The model raised.
    """
    following = _Following(instrumented, samples, statistics)
    for index, batch in enumerate(batches):
        following.run(index, batch)
    account = following.account
    found: dict[BatchNormKey, dict[NoiseKey, Predicted]] = {}
    for (key, noise), pair in account.pairs.items():
        clean = account.clean[key]
        paper: Straight | Weighted | None = account.straight.get(noise)
        if pair.case is Case.THROUGH_WEIGHTS:
            paper = account.weighted.get(pair.through)
        found.setdefault(key, {})[noise] = Predicted(
            pair.case,
            pair.reason,
            clean,
            clean if pair.base is None else pair.base,
            None if pair.extra is None or pair.reason is not None else pair.extra.cpu(),
            None if paper is None else paper.quantities(),
        )
    return found


class _Following:
    """The pass, one batch after the other."""

    def __init__(
        self,
        instrumented: Instrumented,
        samples: Samples,
        statistics: Mapping[BatchNormKey, Population],
    ) -> None:
        self._instrumented = instrumented
        self._samples = samples
        self._statistics = statistics
        self._count = 0
        self.account = _Account()

    def run(self, index: int, batch: Batch) -> None:
        self._count = 0
        follower = Follower(self._source, self._weighed, self._arrived)
        mode = Interception(
            follower, self._instrumented.sites, self._instrumented.stack, index, follower.execute
        )
        try:
            with self._instrumented.guard(), mode:
                self._instrumented.call(batch)
        except Exception as error:
            raise ForwardRaised(index) from error

    def _source(self, call: NoiseCall, output: Tensor) -> Image | Lost:
        known = self._instrumented.stack.switch.modules.get(call.key.name)
        image = source_of(call, None if known is None else known.module, output)
        if isinstance(image, Image):
            spread = spread_of(image)
            if spread is not None and output.dim() >= 2:
                self.account.straight.setdefault(call.key, Straight(spread)).add(output)
        return image

    def _weighed(self, key: NoiseKey, image: Image, weights: Weights) -> object:
        self._count += 1
        handle = (key, self._count)
        spread = spread_of(image)
        if spread is not None and image.whole:
            gathering = self.account.weighted.setdefault(handle, weighted(weights, spread))
            if gathering is not None:
                gathering.add(weights)
        return handle

    def _arrived(
        self, call: BatchNormCall, batch: int, tags: Mapping[NoiseKey, Image | Lost]
    ) -> Tensor:
        x = call.input
        group = self._samples.group_of(batch, x.shape[0])
        self._moments(self.account.clean, call.key, x).add(x, group)
        for noise, image in tags.items():
            pair = self.account.pairs.setdefault((call.key, noise), _Gathered(image.case))
            if isinstance(image, Lost):
                pair.reason = image.reason
            else:
                self._gather(pair, image, x, group)
        if call.training:
            return normalise_by_batch(call)
        known = self._statistics.get(call.key)
        if known is None:
            return call.as_deployed()
        return call.normalise(*call.as_written(known.mean, known.var))

    def _gather(self, pair: _Gathered, image: Image, x: Tensor, group: Tensor | int) -> None:
        pair.through = image.through
        variance = image.variance.expand(x.shape).double()
        by_row = variance.flatten(2).sum(2) if x.dim() > 2 else variance
        if pair.extra is None:
            pair.extra = torch.zeros(
                self._samples.count, x.shape[1], dtype=torch.float64, device=x.device
            )
        rows = torch.full((x.shape[0],), group) if isinstance(group, int) else group
        pair.extra = pair.extra.index_add(0, rows.to(x.device), by_row)
        if image.surplus is not None:
            if pair.base is None:
                pair.base = GroupMoments(self._samples.count, x.shape[1])
            pair.base.add(x + image.surplus, group)

    def _moments(
        self, known: dict[BatchNormKey, GroupMoments], key: BatchNormKey, x: Tensor
    ) -> GroupMoments:
        if key not in known:
            known[key] = GroupMoments(self._samples.count, x.shape[1])
        return known[key]
