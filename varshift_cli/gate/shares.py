"""Thresholds on what the network answers: its accuracy, and the predictions that would change.

Both are shares of the samples, so the interval is Wilson's (1927), at 95 %:

    (k + z^2/2)/(n + z^2)  -+  z/(n + z^2) sqrt(k (n - k)/n + z^2/4),     k = share n, z = 1.96.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from varshift_cli.records import Interval, Policy, Report, Status

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class ShareVerdict:
    """The answer on one share."""

    status: Status
    """``not_gated`` where the share is unknown."""
    reason: str


def judge_shares(report: Report, policy: Policy) -> Iterator[ShareVerdict]:
    """Compare accuracy and changed predictions with their thresholds, where there are any."""
    effect, samples = report.effect, report.calibration.samples
    if policy.min_accuracy is not None:
        scores = effect.accuracy if effect else None
        accuracy = scores.eval if scores else None
        what = "accuracy in eval()"
        yield _judged(what, accuracy, samples, policy.min_accuracy, at_least=True)
    if policy.max_changed_predictions is not None:
        changed = effect.changed_predictions if effect else None
        what = "the share of predictions that recalibration changes"
        yield _judged(what, changed, samples, policy.max_changed_predictions, at_least=False)


def wilson(share: float, samples: int) -> Interval:
    """The 95 % interval of a share of ``samples``, by Wilson's score."""
    spread = _Z**2
    centre = (share * samples + spread / 2) / (samples + spread)
    half = _Z / (samples + spread) * math.sqrt(samples * share * (1 - share) + spread / 4)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _judged(
    what: str, share: float | None, samples: int, threshold: float, *, at_least: bool
) -> ShareVerdict:
    if share is None or samples < 1:
        return ShareVerdict(Status.NOT_GATED, f"{what} is unknown")
    around = wilson(share, samples)
    asked = f"{'at least' if at_least else 'at most'} {_percent(threshold)}"
    measured = f"{_percent(share)} ({_percent(around.low)} to {_percent(around.high)})"
    inside = around.low >= threshold if at_least else around.high <= threshold
    beyond = around.high < threshold if at_least else around.low > threshold
    # All or none of the samples: no sample speaks against it, and none ever could say more.
    if inside or (share, threshold) == ((1.0, 1.0) if at_least else (0.0, 0.0)):
        return ShareVerdict(Status.PASS, f"{what} is {measured}, {asked} was asked")
    if beyond:
        return ShareVerdict(Status.FAIL, f"{what} is {measured}, {asked} was asked")
    return ShareVerdict(
        Status.INCONCLUSIVE, f"{what} is {measured}: more samples decide whether {asked}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
