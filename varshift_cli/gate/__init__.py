"""The gate: a report and a policy in, a verdict out.

The gate decides on intervals, not on points: a layer fails when its whole 95 % interval lies
above the threshold, and nothing passes while a threshold lies inside an interval, or while a
layer has a shift but no interval. Sampling noise alone can so turn a pass into *inconclusive*,
but hardly into a failure. "Nothing was checked" is never a pass.
"""

from varshift_cli.gate.needed import is_settled, samples_needed, two_digits
from varshift_cli.gate.policy import exit_code, judge_report
from varshift_cli.gate.thresholds import check_policy, check_threshold, judge

__all__ = [
    "check_policy",
    "check_threshold",
    "exit_code",
    "is_settled",
    "judge",
    "judge_report",
    "samples_needed",
    "two_digits",
]
