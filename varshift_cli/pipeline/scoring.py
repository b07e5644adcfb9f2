"""Figures of the user's own: accuracy and loss from labels, or ``--metric``; always in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from varshift_cli.errors import UsageError, VarshiftError
from varshift_cli.measurement.outputs import is_classifier
from varshift_cli.records import Interval, Score

_DRAWS = 200
_Z = 1.96

Metric = Callable[[Any, Any], Any]
"""(outputs, labels) -> a number, higher is better."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Compares outputs on the same samples, before and after.

    Attributes:
        labels: Of all samples, shape (samples, ...), or None.
        metric: The user's own figure, which then stands first.
        metric_name: As shown.
    """

    labels: Tensor | None
    metric: Metric | None = None
    metric_name: str = "metric"

    def can(self, outputs: Tensor | None) -> bool:
        """Whether there is any figure for such outputs."""
        if outputs is None:
            return False
        return self.metric is not None or is_classifier(outputs, self.labels)

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
        if is_classifier(before, self.labels) and is_classifier(after, self.labels):
            assert self.labels is not None
            labels = self.labels.long()
            hits = [(each.argmax(1) == labels).double() for each in (before, after)]
            losses = [
                functional.cross_entropy(each.double(), labels, reduction="none")
                for each in (before, after)
            ]
            scores.append(_paired("accuracy", data, *hits))
            scores.append(_paired("loss", data, *losses))
        return tuple(scores)

    def value(self, outputs: Tensor) -> float:
        """The metric of some outputs.

        Raises:
            UsageError: The metric raised, or returned no number.
        """
        return self._call(outputs, self.labels)

    def _by_metric(self, before: Tensor, after: Tensor, data: str) -> Score:
        """With an interval by drawing samples again, the same ones before and after."""
        was, now = self.value(before), self.value(after)
        rows = before.shape[0]
        generator = torch.Generator().manual_seed(0)
        differences = []
        for _ in range(_DRAWS):
            drawn = torch.randint(rows, (rows,), generator=generator)
            labels = None if self.labels is None else self.labels[drawn]
            try:
                change = self._call(after[drawn], labels) - self._call(before[drawn], labels)
            except VarshiftError:
                # A draw may lack a class that the metric needs; the whole data did not.
                continue
            differences.append(change)
        interval = None
        if len(differences) > _DRAWS // 2:
            half = _Z * float(torch.tensor(differences, dtype=torch.float64).std())
            interval = Interval(now - was - half, now - was + half)
        return Score(self.metric_name, data, was, now, rows, interval)

    def _call(self, outputs: Tensor, labels: Tensor | None) -> float:
        assert self.metric is not None
        try:
            value = float(self.metric(outputs, labels))
        except Exception as error:
            raise UsageError(
                f"--metric {self.metric_name} raised {type(error).__name__}: {error}",
                hint="It is called as f(outputs, labels) with all samples in the first dimension, "
                "and returns a number, higher is better.",
            ) from error
        if math.isnan(value):
            raise UsageError(f"--metric {self.metric_name} returned NaN")
        return value


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
    """Means, and an interval from the paired differences of samples."""
    change = after - before
    half = _Z * float(change.std()) / math.sqrt(len(change))
    mean = float(change.mean())
    return Score(
        name,
        data,
        float(before.mean()),
        float(after.mean()),
        len(change),
        Interval(mean - half, mean + half),
    )
