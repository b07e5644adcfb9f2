"""Predictions of single dropouts beside what single dropouts were measured to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from varshift_cli.instrument import BatchNormKey, Instrumented, NoiseKey, Wiring
from varshift_cli.measurement.layers import LayerMoments
from varshift_cli.measurement.paper import Quantities
from varshift_cli.measurement.prediction import Predicted, predict
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch, Case
from varshift_cli.statistics import GroupMoments, jackknife_error, live_channels, log_ratio


@dataclass(frozen=True, slots=True)
class Comparison:
    """One dropout that reaches a layer with no other BN between: predicted beside measured."""

    case: Case
    reason: str | None
    """Why there is no prediction, or why it is not compared."""
    predicted: float | None
    """As :class:`Share`, from the clean pass alone."""
    measured: float | None
    error: float | None
    """Standard error of predicted - measured."""
    agrees: bool | None
    """Whether the two are equal within 95 %."""
    paper: Quantities | None


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is attributed, and with what."""

    instrumented: Instrumented
    batches: Sequence[Batch]
    samples: Samples
    layers: Sequence[LayerMoments]
    wiring: Wiring
    seed: int
    regroup: bool
    memory: int | None = None
    """Bytes that parked forwards may hold; half of what is free by default."""


class Comparing:
    """The predictions of one set of samples, and the measurements that come in one by one.

    Args:
        subject: What is attributed.
        layers: Its layers by key.
        clean: C of every BN call over these samples.

    Attributes:
        found: What is known so far.
    """

    def __init__(
        self,
        subject: Subject,
        layers: Mapping[BatchNormKey, LayerMoments],
        clean: Mapping[BatchNormKey, GroupMoments],
    ) -> None:
        self._subject = subject
        self._layers = layers
        self._clean = clean
        self._indirect = subject.wiring.indirect_sources()
        self._predicted: dict[BatchNormKey, dict[NoiseKey, Predicted]] = {}
        self.found: dict[BatchNormKey, dict[NoiseKey, Comparison]] = {}

    def predict(self, batches: Sequence[Batch], samples: Samples) -> None:
        """One more pass, with all noise off."""
        statistics = {key: moments.pooled() for key, moments in self._clean.items()}
        self._predicted = predict(self._subject.instrumented, batches, samples, statistics)
        for key in self._layers:
            self.found[key] = {
                noise: self._comparison(key, noise, None) for noise in self._predicted.get(key, {})
            }

    def compare(self, noise: NoiseKey, alone: Mapping[BatchNormKey, GroupMoments]) -> None:
        """Take in the pass with this noise alone on."""
        for key, noises in self._predicted.items():
            if noise in noises and key in self._layers:
                share = log_mean(self._layers[key], self._clean[key], alone[key])[0]
                self.found[key][noise] = self._comparison(key, noise, (share, alone[key]))

    def _comparison(
        self, key: BatchNormKey, noise: NoiseKey, measured: tuple[float, GroupMoments] | None
    ) -> Comparison:
        layer, predicted = self._layers[key], self._predicted[key][noise]
        live = live_of(layer)
        reason = predicted.reason
        apart = None
        if reason is None and noise in self._indirect.get(key, frozenset()):
            reason = "it also reaches the layer through other BatchNorm layers"
        elif reason is None and measured is not None:
            apart = predicted.deviation(measured[1], live, layer.eps)
        return Comparison(
            predicted.case,
            reason,
            predicted.share(live, layer.eps),
            None if measured is None else measured[0],
            None if apart is None else apart.error,
            None if apart is None else apart.is_zero,
            predicted.paper,
        )


def log_mean(
    layer: LayerMoments, numerator: GroupMoments, denominator: GroupMoments
) -> tuple[float, float]:
    """Mean over a layer's live channels of the log ratio of two passes over the same samples.

    Returns:
        The mean and its jackknife standard error; NaN with fewer than two groups.
    """
    live = live_of(layer)
    top, bottom = numerator.populated(), denominator.populated()

    def mean(upper: Tensor, lower: Tensor) -> Tensor:
        return log_ratio(upper, lower, layer.eps)[..., live].mean(dim=-1)

    share = float(mean(top.pooled().var, bottom.pooled().var))
    if top.groups < 2 or top.groups != bottom.groups:
        return share, math.nan
    weights = 1.0 - torch.eye(top.groups, dtype=torch.float64)
    partial = mean(top.reweighted(weights)[1], bottom.reweighted(weights)[1])
    return share, jackknife_error(partial)


def live_of(layer: LayerMoments) -> Tensor:
    """The layer's live channels, shape (C,), bool."""
    running = layer.site.held_var
    return live_channels(running, layer.eval.pooled().var, layer.eps)
