"""A report and a policy in, the report with its verdict out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from varshift_cli.gate.needed import needed_by_all
from varshift_cli.gate.thresholds import check_policy, judge
from varshift_cli.records import Policy, Report, Status, Verdict, layer_verdicts

if TYPE_CHECKING:
    from datetime import date

_EXIT_CODES = {
    Status.PASS: 0,
    Status.NOT_GATED: 0,
    Status.FAIL: 1,
    Status.INCONCLUSIVE: 4,
}
_UNCHECKED = 3


def judge_report(
    report: Report,
    policy: Policy | None = None,
    *,
    max_shift: float | None = None,
    baseline: Report | None = None,
    baseline_source: str | None = None,
    today: date | None = None,
) -> Report:
    """The report with its verdict by a policy, a baseline, or both.

    With a baseline a layer fails only if it got worse beyond both 95 % intervals and is not
    *fine*; where a threshold holds as well, it must also lie beyond that. A layer that the
    baseline does not have is judged by the threshold alone.

    Args:
        report: What was measured.
        policy: Thresholds and exceptions; without one only ``max_shift`` and the baseline count.
        max_shift: The largest ``shift`` allowed, a ratio >= 1; wins over the policy's.
        baseline: An earlier report of the same network.
        baseline_source: How the baseline is named in the verdict.
        today: For suppressions that expire; the current day (UTC) by default.

    Returns:
        The same report with another ``verdict``.

    Raises:
        UsageError: A threshold is out of range.
        NothingToMeasureError: No layer has a shift, and no finding decides without one.
    """
    policy = policy or Policy()
    if max_shift is not None:
        policy = replace(policy, max_shift=max_shift)
    check_policy(policy)
    plain = judge(report.layers, policy.max_shift, report.findings)
    if not policy.gates and baseline is None:
        return replace(report, verdict=plain)
    if policy == Policy(policy.max_shift) and baseline is None:
        return replace(report, verdict=_with_needed(plain, report))
    from varshift_cli.gate.judging import verdict_by  # noqa: PLC0415  a threshold does without

    return replace(report, verdict=verdict_by(report, policy, baseline, baseline_source, today))


def exit_code(verdict: Verdict) -> int:
    """The process exit code: 0 pass or not gated, 1 fail, 4 inconclusive.

    3 where nothing was measured or checked, so that no layer can have decided.
    """
    unmeasured = verdict.status is Status.NOT_GATED and verdict.worst_layer is None
    return _UNCHECKED if verdict.unchecked or unmeasured else _EXIT_CODES[verdict.status]


def _with_needed(verdict: Verdict, report: Report) -> Verdict:
    if verdict.status is not Status.INCONCLUSIVE:
        return verdict
    told = layer_verdicts(report.layers, verdict)
    return replace(verdict, samples_needed=needed_by_all(report, told))
