"""The whole policy: thresholds by layer, baseline, suppressions, answers; one verdict.

Apart from :mod:`.policy`, as ``varshift check --max-shift`` needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase

from varshift_cli.gate.answers import AnswerVerdict, judge_answers
from varshift_cli.gate.baseline import Comparison, compare, got_worse
from varshift_cli.gate.needed import needed_by_all
from varshift_cli.gate.suppressions import SetAside, set_aside
from varshift_cli.gate.thresholds import non_finite_layers, verdict_on, worst_with
from varshift_cli.records import (
    NOT_FINITE,
    LayerRecord,
    LayerVerdict,
    Outcome,
    Policy,
    Report,
    Status,
    Verdict,
    outcome_of,
    worst_layer,
)

_CHECKED = {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.KNOWN}


def verdict_by(
    report: Report,
    policy: Policy,
    baseline: Report | None,
    source: str | None,
    today: date | None,
) -> Verdict:
    """The verdict by more than one threshold; see :func:`varshift_cli.gate.judge_report`."""
    comparison = None if baseline is None else compare(report, baseline, source)
    today = today or datetime.now(UTC).date()
    return _Judging(report, policy, comparison, today).verdict()


@dataclass(frozen=True, slots=True)
class _Judging:
    """One report, one policy, perhaps one baseline."""

    report: Report
    policy: Policy
    comparison: Comparison | None
    today: date

    def verdict(self) -> Verdict:
        """Layers first, then answers, then whether anything was checked at all."""
        layers, findings = self.report.layers, self.report.findings
        names = [*(each.name for each in layers), *non_finite_layers(findings)]
        aside = set_aside(self.policy.suppressions, names, findings, self.today)
        broken = [name for name in non_finite_layers(findings) if not aside.reason_for(name)]
        told = tuple(self._layer(layer, aside, broken) for layer in layers)
        answers = list(judge_answers(self.report, self.policy))
        verdict = self._decided(told, broken, answers)
        unchecked = self._unchecked(told, broken, answers)
        if unchecked and verdict.status is not Status.FAIL:
            verdict = replace(verdict, status=Status.NOT_GATED)
        else:
            unchecked = None
        return replace(
            verdict,
            reasons=tuple(self._reasons(answers, aside)),
            samples_needed=needed_by_all(self.report, told)
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
        self, told: Sequence[LayerVerdict], broken: Sequence[str], answers: Sequence[AnswerVerdict]
    ) -> Verdict:
        layers, outcomes = self.report.layers, [each.outcome for each in told]
        if broken:
            return Verdict(Status.FAIL, self.policy.max_shift, broken[0], None)
        checked = [layer for layer, each in zip(layers, outcomes, strict=True) if each in _CHECKED]
        worst = worst_layer(checked or layers)
        statuses = {each.status for each in answers}
        for outcome, status in (
            (Outcome.FAIL, Status.FAIL),
            (Outcome.INCONCLUSIVE, Status.INCONCLUSIVE),
        ):
            decisive = worst_with(outcome, layers, outcomes)
            if decisive is not None or status in statuses:
                return verdict_on(status, self.policy.max_shift, decisive or worst)
        return verdict_on(Status.PASS, self.policy.max_shift, worst)

    def _unchecked(
        self, told: Sequence[LayerVerdict], broken: Sequence[str], answers: Sequence[AnswerVerdict]
    ) -> str | None:
        """What should have been checked and was not; an answer that was is no excuse for layers."""
        for each in answers:
            if each.status is Status.NOT_GATED:
                return each.reason
        asked = self.policy.max_shift is not None or self.policy.layers or self.comparison
        if not asked or broken or any(each.outcome in _CHECKED for each in told):
            return None
        return f"no layer was checked: {_tally(told)}"

    def _reasons(self, answers: Iterable[AnswerVerdict], aside: SetAside) -> Iterator[str]:
        for each in answers:
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
