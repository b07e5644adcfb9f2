"""The report as workflow commands: annotations on the lines that need changing.

GitHub shows ten errors and ten warnings per step, so layers that fail for one cause in one place
are one annotation. The runner ends a command at a line break and a property at a comma; both are
escaped, as everything is that comes from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from varshift_cli.causes import CATALOGUE
from varshift_cli.records import FindingLevel, Level, Outcome, Report, Status
from varshift_cli.report.judged import (
    JudgedLayer,
    Place,
    checkpoint_place,
    is_serious,
    judged_layers,
    worst_first,
)
from varshift_cli.report.text import count, layer_name, visible
from varshift_cli.report.wording import gate_remarks, judgement

MOST = 10
"""Annotations of one kind that GitHub shows for a step."""

_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Annotation:
    kind: str
    """``error``, ``warning`` or ``notice``."""
    title: str
    message: str
    place: Place | None


def to_github(report: Report) -> str:
    """One workflow command a line, the verdict first; ends in a newline."""
    layers = list(_layers(report))
    told = {code for code, _ in layers}
    annotations = [_verdict(report), *(each for _, each in layers), *_findings(report, told)]
    annotations += _remarks(report)
    lines = []
    for kind in ("error", "warning", "notice"):
        of_kind = [each for each in annotations if each.kind == kind]
        shown = of_kind if len(of_kind) <= MOST else of_kind[: MOST - 1]
        lines += [_line(each) for each in shown]
        if len(shown) < len(of_kind):
            more = f"{len(of_kind) - len(shown)} more, in the full report"
            lines.append(_line(_Annotation(kind, "varshift", more, None)))
    return "".join(lines)


def _verdict(report: Report) -> _Annotation:
    said = judgement(report)
    remarks = "".join(f"; {each}" for each in gate_remarks(report))
    return _Annotation(
        _KINDS.get(said.word, "notice"),
        f"varshift {said.word}",
        said.sentence + remarks,
        checkpoint_place(report),
    )


_KINDS = {
    "FAIL": "error",
    "INCONCLUSIVE": "warning",
    "UNCHECKED": "warning",
    "UNKNOWN": "warning",
    **{level.value.upper(): "warning" for level in (Level.STRONG, Level.SEVERE)},
}


def _layers(report: Report) -> Iterable[tuple[str, _Annotation]]:
    """What fails or is undecided, by cause and place; without a gate, what is strong or severe.

    Each with the code of its cause.
    """
    gated = report.verdict.status is not Status.NOT_GATED
    groups: dict[tuple[str, str, Place | None], list[JudgedLayer]] = {}
    for each in worst_first(judged_layers(report)):
        kind = _kind(each) if gated else ("warning" if is_serious(each.layer) else None)
        if kind is not None:
            code = "" if each.finding is None else each.finding.code
            groups.setdefault((kind, code, each.place), []).append(each)
    for (kind, code, place), members in groups.items():
        explain = f" (varshift explain {code})" if code in CATALOGUE else ""
        yield code, _Annotation(kind, _title(code), _told(members) + explain, place)


def _kind(each: JudgedLayer) -> str | None:
    return {Outcome.FAIL: "error", Outcome.INCONCLUSIVE: "warning"}.get(each.outcome)


def _title(code: str) -> str:
    title = CATALOGUE[code].title if code in CATALOGUE else ""
    return " ".join(each for each in ("varshift", code, title) if each)


def _told(members: list[JudgedLayer]) -> str:
    if len(members) == 1:
        return f"{members[0].label}: {members[0].sentence}"
    names = ", ".join(each.label for each in members[1:_NAMED])
    more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
    layers = count(len(members), "layer")
    return f"{layers}, worst {members[0].label}: {members[0].sentence}; then {names}{more}"


def _findings(report: Report, told: Collection[str]) -> Iterable[_Annotation]:
    """Findings that no layer has told already; what passes is no error, whatever was found."""
    passed = report.verdict.status is Status.PASS
    for finding in report.findings:
        if finding.code not in told and finding.level is not FindingLevel.NOTE:
            kind = FindingLevel.WARNING if passed else finding.level
            yield _Annotation(
                kind.value, _title(finding.code), finding.message, checkpoint_place(report)
            )


def _remarks(report: Report) -> Iterable[_Annotation]:
    """What was not measured, by reason, and what else is worth knowing."""
    reasons: dict[str, list[str]] = {}
    for each in report.skipped:
        reasons.setdefault(each.reason, []).append(layer_name(each.name))
    for reason, names in reasons.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        told = f"not measured: {', '.join(names[:_NAMED])}{more}: {reason}"
        yield _Annotation("notice", "varshift", told, None)
    for note in report.notes:
        yield _Annotation("notice", "varshift", note, None)


def _line(each: _Annotation) -> str:
    properties = [("file", each.place.file)] if each.place else []
    if each.place and each.place.line is not None:
        properties.append(("line", str(each.place.line)))
    properties.append(("title", each.title))
    said = ",".join(f"{name}={_property(value)}" for name, value in properties)
    return f"::{each.kind} {said}::{_data(each.message)}\n"


def _data(text: str) -> str:
    return visible(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
