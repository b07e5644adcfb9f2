"""What the rules on running statistics look at: one BN call's buffers against its train pass T.

Letters: ``R`` as stored, ``T`` with dropout on; shapes are (C,) over live channels unless said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from varshift_cli.measurement import LayerMoments
from varshift_cli.records import LayerRecord
from varshift_cli.statistics import GroupMoments, jackknife_error, live_channels

USUAL_MOMENTUM = 0.1
USUAL_BATCH = 32
"""Samples per training batch, where nobody has said."""
REAL = math.log(1.05)
"""|ln factor| from which a factor is worth a finding: above the noise of dropout-free nets (1.04
at the 99th percentile of the paper's 1,235 BN points)."""
_SCATTER = 2.0 * REAL
"""The same of the mean |ln factor| over channels."""
_MEAN_OF_ABSOLUTE = math.sqrt(2.0 / math.pi)
"""E|Z| of a standard normal."""
_DRIFT = 0.1
"""The same of the mean drift, in standard deviations."""
_LEAST_VALUES = 8
"""Values of a channel below which no error can be told from them, and none is ruled out."""
_CERTAIN = (
    235.80, 19.207, 9.2189, 6.6202, 5.5071, 4.9041, 4.5300, 4.2766, 4.0943, 3.9569,
    3.8499, 3.7643, 3.6942, 3.6358, 3.5864, 3.5441, 3.5075, 3.4755, 3.4472, 3.4222,
    3.3997, 3.3796, 3.3613, 3.3448, 3.3296, 3.3158, 3.3030, 3.2913, 3.2804, 3.2703,
    3.2609,
)  # fmt: skip
"""Standard errors beyond which chance is ruled out: what 3 are for a normal, for Student's t with
1 to 31 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Standard errors of what a layer is judged by; 0 where groups of samples do not tell them.

    Channels rise and fall together, as far as the samples make them: so the error of a mean over
    channels is its own, and no mean of theirs.
    """

    signed: float = 0.0
    """Of the mean over channels of ln T."""
    log: float = 0.0
    """Of ln T in one channel, on average."""
    drift: float = 0.0
    """Of the mean of one channel, in standard deviations, on average."""
    degrees: int = 1
    """Of freedom."""

    def times(self, factor: float) -> Errors:
        """All of them larger by a factor."""
        return Errors(factor * self.signed, factor * self.log, factor * self.drift, self.degrees)

    def beside(self, other: Errors) -> Errors:
        """Of a difference between two sets of samples."""
        return Errors(
            math.hypot(self.signed, other.signed),
            math.hypot(self.log, other.log),
            math.hypot(self.drift, other.drift),
            min(self.degrees, other.degrees),
        )

    def exceeded_by(self, log: Tensor, drift: Tensor) -> frozenset[str]:
        """In what channels differ beyond noise: ``size``, ``scatter`` or ``mean``."""
        if not log.numel():
            return frozenset()
        certain = _CERTAIN[min(self.degrees, len(_CERTAIN)) - 1]
        differ = {
            "size": abs(_mean(log)) > max(REAL, certain * self.signed),
            "scatter": _mean(log.abs()) > max(_SCATTER, certain * self.log),
            "mean": _mean(drift.abs()) > max(_DRIFT, certain * self.drift),
        }
        return frozenset(name for name, beyond in differ.items() if beyond)


@dataclass(frozen=True, eq=False)
class Evidence:
    """One layer's stored statistics beside what training would gather on these data."""

    record: LayerRecord
    layer: LayerMoments
    target: GroupMoments
    """T; C where the buffers are known to describe the net without dropout."""
    alpha: float
    """The layer's momentum, the weight of a new batch."""
    units: int
    """Samples that were measured."""

    @property
    def name(self) -> str:
        """As reported."""
        return self.record.name

    @property
    def eps(self) -> float:
        """Of the call."""
        return self.layer.eps

    @property
    def is_input(self) -> bool:
        """Whether no other BN stands between this layer and the network's input."""
        return not self.record.upstream

    @cached_property
    def live(self) -> Tensor:
        """Channels that carry a signal and are finite, shape (all channels,), bool."""
        running = self.layer.site.held_var
        mean = self.layer.site.held_mean
        pooled = self.target.pooled()
        alive = live_channels(running, pooled.var, self.eps)
        finite = running.isfinite() & mean.isfinite() & (running >= 0.0)
        return alive & finite & pooled.var.isfinite() & pooled.mean.isfinite()

    @cached_property
    def running_var(self) -> Tensor:
        """R."""
        return self.layer.site.held_var[self.live]

    @cached_property
    def running_mean(self) -> Tensor:
        """Stored mean."""
        return self.layer.site.held_mean[self.live]

    @cached_property
    def train_var(self) -> Tensor:
        """T."""
        return self.target.pooled().var[self.live]

    @cached_property
    def train_mean(self) -> Tensor:
        """Mean of the train pass."""
        return self.target.pooled().mean[self.live]

    @cached_property
    def log(self) -> Tensor:
        """ln((T+eps)/(R+eps))."""
        return torch.log((self.train_var + self.eps) / (self.running_var + self.eps))

    @cached_property
    def drift(self) -> Tensor:
        """(mean of T - stored mean)/sqrt(T + eps)."""
        return (self.train_mean - self.running_mean) / (self.train_var + self.eps).sqrt()

    @cached_property
    def signed(self) -> float:
        """Mean of ``log``: ln of the stale factor."""
        return _mean(self.log)

    @cached_property
    def distance(self) -> float:
        """Mean of |``log``|."""
        return _mean(self.log.abs())

    @cached_property
    def spread(self) -> float:
        """Standard deviation of ``log`` over channels."""
        return float(self.log.std()) if self.log.numel() > 1 else 0.0

    @cached_property
    def drift_size(self) -> float:
        """Mean of |``drift``|."""
        return _mean(self.drift.abs())

    @cached_property
    def samples(self) -> int:
        """Samples per group, on average; 1 where groups are unknown."""
        return max(1, round(self.units / max(self.groups.groups, 1)))

    @cached_property
    def groups(self) -> GroupMoments:
        """T's moments without empty groups."""
        return self.target.populated()

    @cached_property
    def between(self) -> Tensor:
        """Variance of the samples' own means, from the spread of group means."""
        if self.groups.groups < 2:
            return torch.zeros_like(self.train_var)
        means: Tensor = self.groups.mean[:, self.live]
        return torch.minimum(means.var(dim=0) * self.samples, self.train_var)

    @cached_property
    def positions(self) -> float:
        """Values per channel of one sample."""
        return max(1.0, float(self.groups.count.sum()) / max(self.units, 1))

    @property
    def is_spatial(self) -> bool:
        """Whether a sample has several values per channel."""
        return self.positions > 1.5

    @cached_property
    def sample_cv(self) -> Tensor:
        """Relative standard deviation of the variance from sample to sample."""
        if self.groups.groups < 2:
            return torch.zeros_like(self.train_var)
        count = (self.groups.count - 1.0).clamp(min=1.0).unsqueeze(1)
        within = (self.groups.m2 / count)[:, self.live]
        relative: Tensor = within.std(dim=0) / within.mean(dim=0).clamp(min=1e-30)
        return relative * math.sqrt(self.samples)

    @cached_property
    def _errors(self) -> Errors:
        """Of the train pass alone, by leaving out groups of samples."""
        groups = self.groups
        if groups.groups < 2:
            return Errors()
        if float(groups.count.sum()) < _LEAST_VALUES:
            return Errors(math.inf, math.inf, math.inf)
        mean, var = groups.reweighted(1.0 - torch.eye(groups.groups, dtype=torch.float64))
        log = torch.log(var[:, self.live] + self.eps)
        drift = mean[:, self.live] / (self.train_var + self.eps).sqrt()
        return Errors(
            jackknife_error(log.mean(dim=1)),
            _mean(_by_channel(log)),
            _mean(_by_channel(drift)),
            groups.groups - 1,
        )

    @cached_property
    def errors(self) -> Errors:
        """Of the train pass and of the running average, which is one over samples as well."""
        average = self.alpha / (2.0 - self.alpha) / USUAL_BATCH
        return self._errors.times(math.sqrt(1.0 + self.units * average))

    @property
    def beyond_noise(self) -> float:
        """What is left of the distance without what chance alone would show."""
        return max(0.0, self.distance - _MEAN_OF_ABSOLUTE * self.errors.log)

    @cached_property
    def off_in(self) -> frozenset[str]:
        """In what the buffers differ from T beyond noise.

        In the ``size`` of variances as a whole, in their ``scatter`` over channels, in the
        ``mean``.
        """
        return self.errors.exceeded_by(self.log, self.drift)

    @property
    def is_off(self) -> bool:
        """Whether the buffers differ from T beyond noise at all."""
        return bool(self.off_in)

    @property
    def size(self) -> float:
        """How far the buffers are from T, in variance and mean together."""
        return self.distance + self.drift_size

    def differs_from(self, other: Evidence) -> bool:
        """Whether the T of this layer on other samples differs beyond what samples explain."""
        both = self.live & other.live
        here, there = self.target.pooled(), other.target.pooled()
        var, mean = here.var[both] + self.eps, here.mean[both]
        log = torch.log(var / (there.var[both] + self.eps))
        drift = (mean - there.mean[both]) / var.sqrt()
        return bool(self._errors.beside(other._errors).exceeded_by(log, drift))

    @cached_property
    def like_samples(self) -> float:
        """Of how many samples the stored statistics could be, by their scatter alone."""
        scatter = float((self.log.square()).mean())
        expected = float(self.sample_cv.square().mean())
        return expected / scatter if scatter > 0.0 else math.inf

    def distance_to(self, mean: Tensor | None, var: Tensor) -> float:
        """How far R is from a prediction.

        Mean |ln ratio| of variances, plus that of means in units of the standard deviation, where
        means are predicted.
        """
        found = _mean(torch.log((self.running_var + self.eps) / (var + self.eps)).abs())
        if mean is not None:
            scale = (self.train_var + self.eps).sqrt()
            found += _mean(((self.running_mean - mean) / scale).abs())
        return found


def evidence_of(
    moments: Sequence[LayerMoments],
    records: Sequence[LayerRecord],
    momentum: Mapping[str, float | None],
    units: int,
    *,
    clean: bool = False,
) -> list[Evidence]:
    """One for each call of a BN whose figures are known, in execution order.

    Args:
        moments: As measured.
        records: Of the same calls.
        momentum: By BN, where it is known.
        units: Samples that were measured.
        clean: Compare with C in place of T: for buffers known to describe the net without dropout.
    """
    found = []
    for layer, record in zip(moments, records, strict=True):
        alpha = momentum.get(layer.key.name) or USUAL_MOMENTUM
        target = layer.clean if clean else layer.train
        if record.shift is not None and record.factors.stale is not None:
            found.append(Evidence(record, layer, target, alpha, units))
    return found


def _by_channel(partial: Tensor) -> Tensor:
    """Jackknife errors of all channels, from values with each group left out, shape (G, C)."""
    groups = partial.shape[0]
    deviations = (partial - partial.mean(dim=0)).square().sum(dim=0)
    errors: Tensor = (deviations * (groups - 1) / groups).sqrt()
    return errors


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0
