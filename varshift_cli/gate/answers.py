"""Thresholds on what the network answers: how well it does, and what recalibration would change.

Accuracy and changed predictions are shares of the samples, so their interval is Wilson's (1927),
at 95 %:

    (k + z^2/2)/(n + z^2)  -+  z/(n + z^2) sqrt(k (n - k)/n + z^2/4),     k = share n, z = 1.96.

R2 and the figure of ``--metric`` have theirs in the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from varshift_cli.records import Effect, Interval, Policy, RegimeScores, Report, Status

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class AnswerVerdict:
    """The verdict on one figure."""

    status: Status
    """``not_gated`` where the figure is unknown."""
    reason: str


@dataclass(frozen=True, slots=True)
class _Measured:
    """A figure, its interval, and how both are written; ``None`` where unknown."""

    what: str
    needs: str
    """What makes it known."""
    value: float | None
    interval: Interval | None
    show: Callable[[float], str]

    def at_least(self, threshold: float, best: float | None = None) -> AnswerVerdict:
        """The verdict on a figure that shall not be lower."""
        return self._judged(threshold, 1.0, best)

    def at_most(self, threshold: float, best: float | None = None) -> AnswerVerdict:
        """The verdict on a figure that shall not be higher."""
        return self._judged(threshold, -1.0, best)

    def _judged(self, threshold: float, sign: float, best: float | None) -> AnswerVerdict:
        """By the whole interval; a threshold at the best there can be is kept by that alone."""
        asked = f"{'at least' if sign > 0 else 'at most'} {self.show(threshold)}"
        if self.value is None:
            reason = f"{self.what} is unknown, {asked} was asked: it needs {self.needs}"
            return AnswerVerdict(Status.NOT_GATED, reason)
        if self.interval is None:
            reason = f"{self.what} is {self.show(self.value)}, {asked} was asked: how sure that is "
            return AnswerVerdict(Status.INCONCLUSIVE, f"{reason}cannot be told from these samples")
        low, high = sorted((sign * self.interval.low, sign * self.interval.high))
        around = f"{self.show(self.interval.low)} to {self.show(self.interval.high)}"
        measured = f"{self.what} is {self.show(self.value)} ({around})"
        # All or none of the samples: no sample speaks against it, and none ever could say more.
        if low >= sign * threshold or self.value == threshold == best:
            return AnswerVerdict(Status.PASS, f"{measured}, {asked} was asked")
        if high < sign * threshold:
            return AnswerVerdict(Status.FAIL, f"{measured}, {asked} was asked")
        return AnswerVerdict(
            Status.INCONCLUSIVE, f"{measured}: more samples decide whether {asked}"
        )


def judge_answers(report: Report, policy: Policy) -> Iterator[AnswerVerdict]:
    """Compare what the network answers with its thresholds, where there are any."""
    effect, samples = report.effect, report.calibration.samples
    if policy.min_accuracy is not None:
        found = _share(_accuracy(effect), samples, "accuracy in eval()", "class labels in the data")
        yield found.at_least(policy.min_accuracy, best=1.0)
    if policy.min_r2 is not None:
        r2 = effect.r2 if effect else None
        needs = "targets of a regression in the data, on the scale of the outputs"
        interval = effect.r2_interval if effect else None
        found = _Measured("R2 in eval()", needs, _in_eval(r2), interval, _number)
        yield found.at_least(policy.min_r2)
    if policy.min_metric is not None:
        yield _metric(effect).at_least(policy.min_metric)
    if policy.max_changed_predictions is not None:
        changed = effect.changed_predictions if effect else None
        what = "the share of predictions that recalibration changes"
        found = _share(changed, samples, what, "outputs that are scores of classes")
        yield found.at_most(policy.max_changed_predictions, best=0.0)


def wilson(share: float, samples: int) -> Interval:
    """The 95 % interval of a share of ``samples``, by Wilson's score."""
    spread = _Z**2
    centre = (share * samples + spread / 2) / (samples + spread)
    half = _Z / (samples + spread) * math.sqrt(samples * share * (1 - share) + spread / 4)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _accuracy(effect: Effect | None) -> float | None:
    return None if effect is None else _in_eval(effect.accuracy)


def _metric(effect: Effect | None) -> _Measured:
    if effect is None:
        return _Measured("the figure of --metric in eval()", _METRIC, None, None, _number)
    what = f"{effect.metric_name or 'the figure of --metric'} in eval()"
    return _Measured(what, _METRIC, _in_eval(effect.metric), effect.metric_interval, _number)


_METRIC = "--metric file.py:f at the scan"


def _share(share: float | None, samples: int, what: str, needs: str) -> _Measured:
    if share is None or samples < 1:
        return _Measured(what, needs, None, None, _percent)
    return _Measured(what, needs, share, wilson(share, samples), _percent)


def _in_eval(scores: RegimeScores | None) -> float | None:
    return None if scores is None else scores.eval


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return f"{value:.4g}"
