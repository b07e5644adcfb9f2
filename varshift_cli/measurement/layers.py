"""From moments to the figures of a layer.

Per channel and with +eps on both sides, E/R = (T/R) x (C/T) x (E/C); the geometric mean over
live channels telescopes exactly: ``shift`` ignores direction, ``signed`` keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from varshift_cli.instrument.sites import BatchNormKey, BatchNormSite
from varshift_cli.measurement.small_batches import BatchVariances
from varshift_cli.records import (
    ChannelFigures,
    FactorIntervals,
    Factors,
    Interval,
    LayerRecord,
    Level,
)
from varshift_cli.statistics import (
    GroupMoments,
    Resampling,
    geometric_interval,
    live_channels,
    log_ratio,
    shift_estimate,
)


@dataclass(frozen=True, slots=True, eq=False)
class LayerMoments:
    """What was measured at one BN call.

    Attributes:
        site: The layer; its buffers are R.
        eps: As passed in the call.
        train: Moments of T by group.
        clean: Moments of C by group; the same object as ``train`` without dropout.
        eval: Moments of E by group.
        batch: Variances within batches of the size of training, where these were asked for.
    """

    key: BatchNormKey
    site: BatchNormSite
    eps: float
    train: GroupMoments
    clean: GroupMoments
    eval: GroupMoments
    batch: BatchVariances | None = None


def layer_record(
    layer: LayerMoments, name: str, seed: int, *, with_channels: bool = False
) -> LayerRecord:
    """All figures of one BN call; wiring and causes are filled in by others."""
    figures = _Figures(layer, seed)
    shift = figures.shift()
    worst, worst_ratio = figures.worst_channel()
    factors, intervals = figures.factors()
    return LayerRecord(
        name=name,
        kind=layer.site.kind,
        num_features=layer.site.num_features,
        eps=layer.eps,
        call=layer.key.call,
        shift=shift[0],
        shift_interval=shift[1],
        signed=figures.signed(),
        signed_interval=figures.interval("eval", "running"),
        paper_ratio=figures.paper_ratio(),
        median_ratio=figures.median_ratio(),
        worst_channel=worst,
        worst_ratio=worst_ratio,
        mean_shift=figures.mean_shift(),
        dead_channels=int((~figures.live).sum()),
        level=None if shift[0] is None else Level.of(shift[0]),
        cause=None,
        factors=factors,
        factor_intervals=intervals,
        channels=figures.channels() if with_channels else None,
    )


class _Figures:
    """Variances of one layer in every regime, and their ratios."""

    def __init__(self, layer: LayerMoments, seed: int) -> None:
        self.eps = layer.eps
        self.running_mean = layer.site.held_mean
        self.running_var = layer.site.held_var
        self.eval = layer.eval.populated()
        same = layer.train is layer.clean
        clean = layer.clean.populated()
        moments = {
            "eval": self.eval,
            "clean": clean,
            "train": clean if same else layer.train.populated(),
        }
        self._means = {name: group.pooled().mean for name, group in moments.items()}
        self._vars = {name: group.pooled().var for name, group in moments.items()}
        self._vars["running"] = self.running_var
        self.resampling = Resampling.of(self.eval.groups, seed)
        self._partial = {
            name: group.reweighted(self.resampling.jackknife)[1]
            for name, group in moments.items()
            if group.groups == self.eval.groups
        }
        self._partial["running"] = self.running_var.unsqueeze(0)
        if layer.batch is not None:
            self._vars["batch"] = layer.batch.pooled()
            partial = layer.batch.leave_one_out()
            if partial is not None and len(partial) == self.eval.groups:
                self._partial["batch"] = partial
        self.live = live_channels(self.running_var, self._vars["eval"], self.eps)
        finite = torch.stack(list(self._vars.values())).isfinite().all()
        self.usable = bool(self.live.any()) and bool(finite)

    def shift(self) -> tuple[float | None, Interval | None]:
        if not self.usable:
            return None, None
        estimate = shift_estimate(self.eval, self.running_var, self.eps, self.live, self.resampling)
        return estimate.shift, estimate.interval

    def log_mean(self, numerator: str, denominator: str) -> float:
        """Mean over live channels of the log ratio."""
        ratio = log_ratio(self._vars[numerator], self._vars[denominator], self.eps)
        return float(ratio[self.live].mean())

    def interval(self, numerator: str, denominator: str) -> Interval | None:
        """Jackknife interval of the geometric mean."""
        if not self.usable or not {numerator, denominator} <= self._partial.keys():
            return None
        partial = log_ratio(self._partial[numerator], self._partial[denominator], self.eps)
        return geometric_interval(
            self.log_mean(numerator, denominator), partial[:, self.live].mean(dim=1)
        )

    def signed(self) -> float | None:
        return math.exp(self.log_mean("eval", "running")) if self.usable else None

    def factors(self) -> tuple[Factors, FactorIntervals]:
        if not self.usable:
            return Factors(None, None, None, None), FactorIntervals(None, None, None, None)
        pairs = {
            "stale": ("train", "running"),
            "dropout": ("clean", "train"),
            "inherited": ("eval", "clean"),
        }
        if "batch" in self._vars:
            pairs |= {"stale": ("batch", "running"), "batch": ("train", "batch")}
        values: dict[str, float | None] = {"batch": None}
        bounds: dict[str, Interval | None] = {"batch": None}
        values |= {name: math.exp(self.log_mean(*pair)) for name, pair in pairs.items()}
        bounds |= {name: self.interval(*pair) for name, pair in pairs.items()}
        if self._vars["train"] is self._vars["clean"] or torch.equal(
            self._vars["train"], self._vars["clean"]
        ):
            # T and C are one pass: the factor is exactly 1, with nothing to estimate.
            bounds["dropout"] = Interval(1.0, 1.0)
        return Factors(**values), FactorIntervals(**bounds)

    def paper_ratio(self) -> float | None:
        if not self.usable:
            return None
        ratio = float(self._vars["eval"].mean() / self.running_var.mean())
        return max(ratio, 1.0 / ratio) if ratio > 0.0 else None

    def median_ratio(self) -> float | None:
        if not self.usable:
            return None
        ratios = log_ratio(self._vars["eval"], self.running_var, self.eps)[self.live]
        return math.exp(float(torch.quantile(ratios, 0.5)))

    def worst_channel(self) -> tuple[int | None, float | None]:
        if not self.usable:
            return None, None
        ratios = log_ratio(self._vars["eval"], self.running_var, self.eps)
        distance = torch.where(self.live, ratios.abs(), -1.0)
        worst = int(distance.argmax())
        return worst, math.exp(float(ratios[worst]))

    def mean_shift(self) -> float | None:
        if not self.usable:
            return None
        deviation = (self._means["eval"] - self.running_mean) / (self.running_var + self.eps).sqrt()
        return float(deviation.square().mean().sqrt())

    def channels(self) -> ChannelFigures:
        arrays: Mapping[str, Tensor] = {
            **{f"{name}_var": var for name, var in self._vars.items() if name != "batch"},
            **{f"{name}_mean": mean for name, mean in self._means.items()},
            "running_mean": self.running_mean,
        }
        return ChannelFigures(**{name: tuple(array.tolist()) for name, array in arrays.items()})
