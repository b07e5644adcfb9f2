"""The whole policy: thresholds by layer, baseline, suppressions, shares; one verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase

from varshift_cli.gate.baseline import Comparison, compare, got_worse
from varshift_cli.gate.needed import samples_needed
from varshift_cli.gate.shares import ShareVerdict, judge_shares
from varshift_cli.gate.suppressions import SetAside, set_aside
from varshift_cli.gate.thresholds import (
    check_policy,
    judge,
    non_finite_layers,
    verdict_on,
    worst_with,
)
from varshift_cli.records import (
    NOT_FINITE,
    LayerRecord,
    LayerVerdict,
    Outcome,
    Policy,
    Report,
    Status,
    Verdict,
    layer_verdicts,
    outcome_of,
    worst_layer,
)

_EXIT_CODES = {
    Status.PASS: 0,
    Status.NOT_GATED: 0,
    Status.FAIL: 1,
    Status.INCONCLUSIVE: 4,
}
_UNCHECKED = 3
_CHECKED = {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.KNOWN}


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
    today = today or datetime.now(UTC).date()
    comparison = None if baseline is None else compare(report, baseline, baseline_source)
    return replace(report, verdict=_Judging(report, policy, comparison, today).verdict())


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
    return replace(verdict, samples_needed=_needed(report, told))


def _needed(report: Report, told: Sequence[LayerVerdict]) -> int | None:
    """Samples that decide every undecided layer; ``None`` if that cannot be told of one."""
    numbers = [
        samples_needed(layer, each.threshold, report.calibration.samples)
        for layer, each in zip(report.layers, told, strict=True)
        if each.outcome is Outcome.INCONCLUSIVE and each.threshold is not None
    ]
    known = [number for number in numbers if number is not None]
    return max(known) if known and len(known) == len(numbers) else None


@dataclass(frozen=True, slots=True)
class _Judging:
    """One report, one policy, perhaps one baseline."""

    report: Report
    policy: Policy
    comparison: Comparison | None
    today: date

    def verdict(self) -> Verdict:
        """Layers first, then shares, then whether anything was checked at all."""
        layers, findings = self.report.layers, self.report.findings
        names = [*(each.name for each in layers), *non_finite_layers(findings)]
        aside = set_aside(self.policy.suppressions, names, findings, self.today)
        broken = [name for name in non_finite_layers(findings) if not aside.reason_for(name)]
        told = tuple(self._layer(layer, aside, broken) for layer in layers)
        shares = list(judge_shares(self.report, self.policy))
        verdict = self._decided(told, broken, shares)
        unchecked = self._unchecked(told, broken, shares)
        if unchecked and verdict.status is not Status.FAIL:
            verdict = replace(verdict, status=Status.NOT_GATED)
        else:
            unchecked = None
        return replace(
            verdict,
            reasons=tuple(self._reasons(shares, aside)),
            samples_needed=_needed(self.report, told)
            if verdict.status is Status.INCONCLUSIVE
            else None,
            unchecked=unchecked,
            layers=told,
            suppressed=aside.records,
            baseline=None if self.comparison is None else self.comparison.record,
        )

    def _layer(self, layer: LayerRecord, aside: SetAside, broken: Sequence[str]) -> LayerVerdict:
        threshold = self.policy.threshold_of(layer.name)
        outcome, reason = outcome_of(layer, threshold), aside.reason_for(layer.name)
        if reason is not None:
            outcome = Outcome.SUPPRESSED
        elif layer.name in broken:
            outcome, reason = Outcome.FAIL, NOT_FINITE
        elif self.comparison is not None and outcome is not Outcome.NOT_MEASURED:
            before = self.comparison.before.get((layer.name, layer.call))
            if before is not None:
                outcome, reason = _against(layer, before, outcome)
        return LayerVerdict(layer.name, layer.call, outcome, threshold, reason)

    def _decided(
        self, told: Sequence[LayerVerdict], broken: Sequence[str], shares: Sequence[ShareVerdict]
    ) -> Verdict:
        layers, outcomes = self.report.layers, [each.outcome for each in told]
        if broken:
            return Verdict(Status.FAIL, self.policy.max_shift, broken[0], None)
        checked = [layer for layer, each in zip(layers, outcomes, strict=True) if each in _CHECKED]
        worst = worst_layer(checked or layers)
        statuses = {each.status for each in shares}
        for outcome, status in (
            (Outcome.FAIL, Status.FAIL),
            (Outcome.INCONCLUSIVE, Status.INCONCLUSIVE),
        ):
            decisive = worst_with(outcome, layers, outcomes)
            if decisive is not None or status in statuses:
                return verdict_on(status, self.policy.max_shift, decisive or worst)
        return verdict_on(Status.PASS, self.policy.max_shift, worst)

    def _unchecked(
        self, told: Sequence[LayerVerdict], broken: Sequence[str], shares: Sequence[ShareVerdict]
    ) -> str | None:
        """What should have been checked and was not; a share that was is no excuse for layers."""
        for each in shares:
            if each.status is Status.NOT_GATED:
                return each.reason
        asked = self.policy.max_shift is not None or self.policy.layers or self.comparison
        if not asked or broken or any(each.outcome in _CHECKED for each in told):
            return None
        return f"no layer was checked: {_tally(told)}"

    def _reasons(self, shares: Iterable[ShareVerdict], aside: SetAside) -> Iterator[str]:
        for each in shares:
            if each.status is not Status.PASS:
                yield each.reason
        if self.comparison is not None:
            yield from self.comparison.notes
        yield from aside.notes
        for rule in self.policy.layers:
            if not any(fnmatchcase(each.name, rule.pattern) for each in self.report.layers):
                yield f"the threshold of layers {rule.pattern!r} fits no layer"


def _against(
    layer: LayerRecord, before: LayerRecord, by_threshold: Outcome
) -> tuple[Outcome, str | None]:
    """A layer's outcome by its threshold and by what it was before."""
    worse = got_worse(layer, before)
    was = f"{before.shift:.2f} in the baseline"
    if worse is None:
        undecided = by_threshold is not Outcome.PASS
        return (Outcome.INCONCLUSIVE, was) if undecided else (by_threshold, None)
    if by_threshold is Outcome.NOT_GATED:
        return (Outcome.FAIL, was) if worse else (Outcome.PASS, None)
    if by_threshold is Outcome.PASS:
        return by_threshold, None
    return (by_threshold, was) if worse else (Outcome.KNOWN, was)


def _tally(told: Sequence[LayerVerdict]) -> str:
    parts = []
    for outcome, words in (
        (Outcome.SUPPRESSED, "suppressed"),
        (Outcome.NOT_MEASURED, "not measured"),
        (Outcome.NOT_GATED, "without threshold and baseline"),
    ):
        number = sum(each.outcome is outcome for each in told)
        if number:
            parts.append(f"{number} {words}")
    return ", ".join(parts) or "the report has none"
