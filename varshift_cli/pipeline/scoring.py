"""Figures of the user's own: by the targets in the data, or ``--metric``; always in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from varshift_cli.errors import UsageError, VarshiftError
from varshift_cli.measurement.figures import kind_of, paired_change, perfect, scored
from varshift_cli.records import Interval, Score
from varshift_cli.statistics import all_but_one_group, left_out_interval

Metric = Callable[[Any, Any], Any]
"""(outputs, labels) -> a number, higher is better."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Compares outputs on the same samples, before and after.

    Attributes:
        targets: Of all samples, shape (samples, ...), or None.
        metric: The user's own figure, which then stands first.
        metric_name: As shown.
    """

    targets: Tensor | None
    metric: Metric | None = None
    metric_name: str = "metric"
    _values: MutableMapping[Tensor, float] = field(
        default_factory=WeakTensorKeyDictionary, repr=False
    )
    """The metric of outputs already scored: it may be slow, and is called once for each."""
    _without_groups: MutableMapping[Tensor, Tensor] = field(
        default_factory=WeakTensorKeyDictionary, repr=False
    )

    def can(self, outputs: Tensor | None) -> bool:
        """Whether there is any figure for such outputs."""
        if outputs is None:
            return False
        return self.metric is not None or kind_of(outputs, self.targets) is not None

    def compare(self, before: Tensor | None, after: Tensor | None, data: str) -> tuple[Score, ...]:
        """Scores, the decisive one first; none where they cannot be told.

        Args:
            before: Outputs as it is, one row per sample.
            after: Outputs after a repair, the same rows.
            data: What the samples are called.
        """
        if before is None or after is None or not (self.can(before) and self.can(after)):
            return ()
        scores = []
        if self.metric is not None:
            scores.append(self._by_metric(before, after, data))
        return (*scores, *self._by_targets(before, after, data))

    def _by_targets(self, before: Tensor, after: Tensor, data: str) -> tuple[Score, ...]:
        found = scored((before, after), self.targets)
        if not found:
            return ()
        was, now = found
        return tuple(_paired(name, data, was[name], now[name]) for name in was)

    def value(self, outputs: Tensor) -> float:
        """The metric of some outputs.

        Raises:
            UsageError: The metric raised, or returned no number.
        """
        found = self._values.get(outputs)
        if found is None:
            found = self._values[outputs] = self._call(outputs, self.targets)
        return found

    def interval(self, outputs: Tensor | None) -> Interval | None:
        """95 % interval of the metric of some outputs."""
        if outputs is None:
            return None
        return left_out_interval(self.value(outputs), self._left_out(outputs), outputs.shape[0])

    def refuse_wrong_sign(self, outputs: Tensor) -> None:
        """Refuse a metric that a perfect answer lowers: a loss, where higher should be better.

        Raises:
            UsageError: It does so, where the targets tell what a perfect answer is.
        """
        kind = kind_of(outputs, self.targets)
        if self.metric is None or self.targets is None or kind is None:
            return
        now = self.value(outputs)
        try:
            best = self._call(perfect(kind, outputs, self.targets), self.targets)
        except VarshiftError:
            return
        if best < now:
            raise UsageError(
                f"--metric {self.metric_name} is lower for perfect outputs ({best:.4g}) than for "
                f"the model's ({now:.4g}): higher should be better",
                hint="Return its negative.",
            )

    def _by_metric(self, before: Tensor, after: Tensor, data: str) -> Score:
        """With an interval by leaving out groups of samples, the same ones before and after."""
        was, now = self.value(before), self.value(after)
        rows = before.shape[0]
        change = self._left_out(after) - self._left_out(before)
        interval = left_out_interval(now - was, change, rows)
        return Score(self.metric_name, data, was, now, rows, interval)

    def _left_out(self, outputs: Tensor) -> Tensor:
        """The metric without each group of samples, NaN where it has no value, shape (G,)."""
        found = self._without_groups.get(outputs)
        if found is None:
            rows = outputs.shape[0]
            found = torch.tensor(
                [self._without(outputs, kept) for kept in all_but_one_group(rows)],
                dtype=torch.float64,
            )
            self._without_groups[outputs] = found
        return found

    def _without(self, outputs: Tensor, kept: Tensor) -> float:
        targets = None if self.targets is None else self.targets[kept]
        try:
            return self._call(outputs[kept], targets)
        except VarshiftError:
            # All samples of a class that the metric needs may lie in one group.
            return math.nan

    def _call(self, outputs: Tensor, targets: Tensor | None) -> float:
        assert self.metric is not None
        try:
            value = float(self.metric(outputs, targets))
        except Exception as error:
            raise UsageError(
                f"--metric {self.metric_name} raised {type(error).__name__}: {error}",
                hint="It is called as f(outputs, labels) with all samples in the first dimension, "
                "and returns a number, higher is better.",
            ) from error
        if math.isnan(value):
            raise UsageError(f"--metric {self.metric_name} returned NaN{_nan_in(targets)}")
        return value


def _nan_in(targets: Tensor | None) -> str:
    if targets is None or bool(targets.isfinite().all()):
        return ""
    return ": the targets hold NaN or infinity"


def is_better(score: Score) -> bool:
    """Whether the whole interval says so."""
    if score.difference is None:
        return False
    return score.difference.high < 0.0 if score.name == "loss" else score.difference.low > 0.0


def is_worse(score: Score) -> bool:
    """Whether the whole interval says so."""
    if score.difference is None:
        return False
    return score.difference.low > 0.0 if score.name == "loss" else score.difference.high < 0.0


def _paired(name: str, data: str, before: Tensor, after: Tensor) -> Score:
    """Means, and the interval of the paired change."""
    means = float(before.mean()), float(after.mean())
    return Score(name, data, *means, len(before), paired_change(before, after))
