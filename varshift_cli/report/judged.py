"""Each layer with what the gate said of it, what explains it, and where to look.

What Markdown, annotations, JUnit and SARIF share, so that they cannot disagree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from varshift_cli.causes import CATALOGUE, Family
from varshift_cli.records import (
    NON_FINITE,
    NOT_FINITE,
    Finding,
    FindingLevel,
    LayerRecord,
    Level,
    Outcome,
    Report,
    Status,
    layer_verdicts,
)
from varshift_cli.report.layers import called, cause_words, fed_by, reasons_unmeasured
from varshift_cli.report.text import interval, ratio, visible

_BAD = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a source file, or a file as a whole."""

    file: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class JudgedLayer:
    """One layer, and all that a format may want to say of it."""

    layer: LayerRecord
    label: str
    """Its name, made visible; ``#2`` for a second call."""
    outcome: Outcome
    threshold: float | None
    reason: str | None
    """Why, where the threshold does not say it all."""
    finding: Finding | None
    """Of those that name the layer, the first that is about the cause in ``figures``."""
    place: Place | None
    """The call of the dropout that feeds it, else the checkpoint."""
    figures: str
    """``shift 2.92 (2.84-3.00), dropout 0.34, fed by body.0.drop model.py:31``."""

    @property
    def sentence(self) -> str:
        """The figures, and how they were judged."""
        bound = "" if self.threshold is None else f"{self.threshold:g}"
        said = {
            Outcome.PASS: f"within {bound}" if bound else "no worse than in the baseline",
            Outcome.FAIL: f"above {bound}" if bound else "worse than in the baseline",
            Outcome.INCONCLUSIVE: f"undecided about {bound}" if bound else "undecided",
            Outcome.KNOWN: f"above {bound} as in the baseline" if bound else "as in the baseline",
            Outcome.SUPPRESSED: "suppressed",
            Outcome.NOT_MEASURED: "not measured",
            Outcome.NOT_GATED: "not gated",
        }[self.outcome]
        why = "" if self.reason is None else f": {visible(self.reason)}"
        return "; ".join(each for each in (self.figures, said + why) if each)


def judged_layers(report: Report) -> list[JudgedLayer]:
    """Every layer of a report, in execution order."""
    calls = Counter(layer.name for layer in report.layers)
    reasons = reasons_unmeasured(report)
    findings = _findings_by_layer(report)
    places = {each.name: each.location for each in report.dropouts}
    broken = _broken(report)
    told = layer_verdicts(report.layers, report.verdict)
    judged: list[JudgedLayer] = []
    for layer, verdict in zip(report.layers, told, strict=True):
        outcome, reason = verdict.outcome, verdict.reason
        if outcome is Outcome.NOT_MEASURED:
            reason = reason or report.unknown.get(f"layers.{len(judged)}.shift")
            if layer.name in broken:
                outcome, reason = Outcome.FAIL, NOT_FINITE
        judged.append(
            JudgedLayer(
                layer,
                called(layer, calls),
                outcome,
                verdict.threshold,
                reason,
                _explaining(layer, findings.get(layer.name, ())),
                _place(report, layer, places),
                "" if (layer.name, layer.call) in reasons else _figures(report, layer),
            )
        )
    return judged


def worst_first(judged: list[JudgedLayer]) -> list[JudgedLayer]:
    """Failing layers first, then undecided ones, then the rest; each by shift."""
    return sorted(judged, key=lambda each: (_BAD.get(each.outcome, 2), -(each.layer.shift or 0.0)))


def checkpoint_place(report: Report) -> Place | None:
    """The checkpoint as a place; none for a model in memory."""
    return None if report.checkpoint.path is None else Place(report.checkpoint.path)


def is_serious(layer: LayerRecord) -> bool:
    """Whether a layer is bad enough to be shown as a problem where no gate says what is."""
    return layer.level in {Level.STRONG, Level.SEVERE}


_FACTORS: Mapping[Family, tuple[str, ...]] = {
    Family.DROPOUT: ("dropout",),
    Family.INHERITED: ("inherited",),
    **dict.fromkeys(
        (Family.BUFFERS, Family.BATCHES, Family.STRUCTURE, Family.DATA), ("stale", "batch")
    ),
}
"""The factors that a family of causes is seen in; noise that cannot be switched off hides them."""


def _findings_by_layer(report: Report) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        for name in finding.layers:
            found.setdefault(name, []).append(finding)
    return found


def _explaining(layer: LayerRecord, findings: Sequence[Finding]) -> Finding | None:
    """The finding that speaks of the factor which is named as the layer's cause.

    Another one's title beside that factor would blame dropout for what is passed on.
    """
    if layer.cause is None:
        return next(iter(findings), None)
    for factor in layer.cause.split(_AND):
        for finding in findings:
            if factor in _factors_of(finding, layer):
                return finding
    return None


def _factors_of(finding: Finding, layer: LayerRecord) -> tuple[str, ...]:
    """The factors of a layer that a finding is about; all named ones where no family tells."""
    cause = CATALOGUE.get(finding.code)
    named = tuple((layer.cause or "").split(_AND))
    return named if cause is None else _FACTORS.get(cause.family, named)


_AND = " x "
"""Between two factors that cancel."""


def under(report: Report, judged: JudgedLayer, finding: Finding) -> JudgedLayer:
    """The layer as one finding sees it: with the factor, the source and the place of that one."""
    if judged.finding is finding or judged.layer.cause is None or not judged.figures:
        return judged
    factors = _factors_of(finding, judged.layer)
    named = [each for each in judged.layer.cause.split(_AND) if each in factors]
    told = named or (factors if finding.level is not FindingLevel.NOTE else ())
    seen = replace(judged.layer, cause=next(iter(told), None))
    places = {each.name: each.location for each in report.dropouts}
    return replace(
        judged,
        finding=finding,
        figures=_figures(report, seen),
        place=_place(report, seen, places),
    )


def _broken(report: Report) -> set[str]:
    """Layers that fail any gate: their running statistics are not finite."""
    if report.verdict.status is Status.NOT_GATED:
        return set()
    found = [each for each in report.findings if each.code in NON_FINITE]
    return {name for finding in found for name in finding.layers}


def _place(report: Report, layer: LayerRecord, locations: Mapping[str, str | None]) -> Place | None:
    shares = {each.name: abs(each.share) for each in layer.attribution or ()}
    names = sorted((each.name for each in layer.dropouts), key=lambda name: -shares.get(name, 0.0))
    if layer.cause is not None and "dropout" in layer.cause:
        for name in names:
            found = re.fullmatch(r"(.+):(\d+)", locations.get(name) or "", re.DOTALL)
            if found:
                return Place(found[1], int(found[2]))
    return checkpoint_place(report)


def _figures(report: Report, layer: LayerRecord) -> str:
    if layer.shift is None:
        return ""
    spread = interval(layer.shift_interval)
    parts = [f"shift {ratio(layer.shift)}" + (f" ({spread})" if spread else "")]
    if layer.cause is not None:
        source = " ".join(fed_by(report, layer).split())
        by = "" if source.startswith("x ") or not source else "fed by "
        parts += [" ".join(cause_words(layer).split()) + (f", {by}{source}" if source else "")]
    return ", ".join(parts)
