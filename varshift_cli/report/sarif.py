"""The report as SARIF 2.1.0, for code scanning.

Rules are the causes of the catalogue that were found; a result is one layer under one cause, at
the line that calls the dropout where that is known, else at the checkpoint. A layer that fails the
gate is an error whatever its cause; one that is undecided is *open*; what is set aside stays in
the log, suppressed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from varshift_cli.causes import CATALOGUE, Cause
from varshift_cli.records import Finding, FindingLevel, Outcome, Report, Status
from varshift_cli.report.judged import (
    JudgedLayer,
    Place,
    checkpoint_place,
    judged_layers,
    under,
)
from varshift_cli.report.text import layer_name, visible
from varshift_cli.report.wording import judgement

BEYOND = "max-shift"
"""The rule for layers that fail a gate and that no finding explains."""

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_HEX = 64  # digits of a SHA-256


def to_sarif(report: Report) -> str:
    """The report as a SARIF log with one run, ending in a newline."""
    results = [*_of_layers(report), *_of_findings(report)]
    rules = sorted({each["ruleId"] for each in results})
    for each in results:
        each["ruleIndex"] = rules.index(each["ruleId"])
    driver = {
        "name": "varshift",
        "version": report.varshift_version,
        "rules": [_rule(code) for code in rules],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"varshift/{visible(report.checkpoint.path or 'model')}/"},
        "invocations": [
            {"executionSuccessful": True, "toolExecutionNotifications": _notifications(report)}
        ],
        "artifacts": _artifacts(report),
        "results": results,
        "properties": {"verdict": report.verdict.status.value, **_threshold(report)},
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _of_layers(report: Report) -> Iterable[dict[str, Any]]:
    """A result for each layer that a finding names or that the gate did not pass."""
    calls: dict[str, list[JudgedLayer]] = {}
    for each in judged_layers(report):
        calls.setdefault(each.layer.name, []).append(each)
    for finding in report.findings:
        for name in finding.layers:
            for judged in calls.get(name, ()):
                yield _result(finding, under(report, judged, finding))
    named = {name for finding in report.findings for name in finding.layers}
    for each in judged_layers(report):
        bad = each.outcome in {Outcome.FAIL, Outcome.INCONCLUSIVE}
        if bad and each.layer.name not in named:
            yield _result(None, each)


def _result(finding: Finding | None, judged: JudgedLayer) -> dict[str, Any]:
    code = BEYOND if finding is None else finding.code
    level = FindingLevel.WARNING if finding is None else finding.level
    title = _title(code)
    result: dict[str, Any] = {
        "ruleId": visible(code),
        "level": _LEVELS.get(judged.outcome, level.value),
        "message": {"text": _message(f"{judged.label}: {title}; {judged.sentence}")},
        "locations": [_location(judged.place, judged.layer.name)],
        "partialFingerprints": {"varshift/v1": _fingerprint(code, judged)},
        "properties": _figures(judged),
    }
    if judged.outcome is Outcome.INCONCLUSIVE:
        result["kind"] = "open"
    if judged.outcome is Outcome.SUPPRESSED:
        reason = visible(judged.reason or "")
        result["suppressions"] = [{"kind": "external", "justification": reason}]
    return result


_LEVELS = {Outcome.FAIL: "error", Outcome.KNOWN: "note", Outcome.INCONCLUSIVE: "none"}
"""Where the gate says more than the finding; a result of kind *open* has the level *none*."""


def _of_findings(report: Report) -> Iterable[dict[str, Any]]:
    """A result for each finding about no layer, or about one that is not among the layers."""
    measured = {layer.name for layer in report.layers}
    for finding in report.findings:
        names: list[str | None] = [name for name in finding.layers if name not in measured]
        for name in names if finding.layers else [None]:
            about = "" if name is None else f":{layer_name(name)}"
            yield {
                "ruleId": visible(finding.code),
                "level": finding.level.value,
                "message": {"text": _message(finding.message)},
                "locations": [_location(checkpoint_place(report), name)],
                "partialFingerprints": {"varshift/v1": visible(finding.code) + about},
            }


def _location(place: Place | None, layer: str | None) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if place is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": uri(place.file)},
            "region": {"startLine": place.line or 1},  # a checkpoint has no lines, GitHub asks one
        }
    if layer is not None:
        location["logicalLocations"] = [
            {"fullyQualifiedName": layer_name(layer), "kind": "module"},
        ]
    return location


def uri(path: str) -> str:
    """A file path as a URI reference: relative ones stay so, absolute ones get ``file://``."""
    if re.match(r"[A-Za-z]:[\\/]", path):
        return f"file:///{path[:2]}{_quoted(path[2:].replace(chr(92), '/'))}"
    return f"file://{_quoted(path)}" if path.startswith("/") else _quoted(path)


def _quoted(path: str) -> str:
    return quote(path.encode("utf-8", "backslashreplace"))


def _figures(judged: JudgedLayer) -> dict[str, Any]:
    layer, spread = judged.layer, judged.layer.shift_interval
    factors = {
        name: getattr(layer.factors, name) for name in ("stale", "batch", "dropout", "inherited")
    }
    figures = {
        "outcome": judged.outcome.value,
        "shift": layer.shift,
        "shiftInterval": None if spread is None else [spread.low, spread.high],
        "threshold": judged.threshold,
        **factors,
    }
    return {name: value for name, value in figures.items() if _is_finite(value)}


def _is_finite(value: object) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return all(
        each is not None and not (isinstance(each, float) and each - each != 0) for each in numbers
    )


def _fingerprint(code: str, judged: JudgedLayer) -> str:
    return f"{visible(code)}:{judged.label}#{judged.layer.call}"


def _rule(code: str) -> dict[str, Any]:
    cause = CATALOGUE.get(code)
    if cause is None:
        text = "the layer's shift lies above the threshold that the gate was given"
        title = _title(code) if code == BEYOND else code
        return {
            "id": visible(code),
            "shortDescription": {"text": visible(title)},
            "help": {"text": text},
        }
    return {
        "id": code,
        "shortDescription": {"text": cause.title},
        "fullDescription": {"text": _message(cause.short)},
        "help": {"text": _help(cause)},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["batchnorm", cause.family.value]},
    }


def _help(cause: Cause) -> str:
    remedies = [f"{index}. {each.title}: {each.how}" for index, each in _numbered(cause)]
    signature = "\n".join([*cause.legend, cause.signature])
    parts = [cause.why, signature, "\n".join(remedies), cause.reference]
    return _message("\n\n".join(each for each in parts if each))


def _numbered(cause: Cause) -> Iterable[tuple[int, Any]]:
    return enumerate(cause.remedies_for(None), start=1)


def _title(code: str) -> str:
    if code == BEYOND:
        return "shift beyond the threshold"
    return CATALOGUE[code].title if code in CATALOGUE else code


def _notifications(report: Report) -> list[dict[str, Any]]:
    """The verdict, and what was not measured, as remarks on the run."""
    said = judgement(report)
    told = [_notification(f"{said.word}: {said.sentence}")]
    told += [_notification(each) for each in report.notes]
    told += [
        _notification(f"not measured: {layer_name(each.name)}: {visible(each.reason)}")
        for each in report.skipped
    ]
    return told


def _notification(text: str) -> dict[str, Any]:
    return {"level": "note", "message": {"text": _message(text)}}


def _artifacts(report: Report) -> list[dict[str, Any]]:
    path, sha256 = report.checkpoint.path, report.checkpoint.sha256
    if path is None:
        return []
    artifact: dict[str, Any] = {"location": {"uri": uri(path)}, "roles": ["analysisTarget"]}
    if sha256 is not None and re.fullmatch(rf"[0-9a-f]{{{_HEX}}}", sha256):
        artifact["hashes"] = {"sha-256": sha256}
    return [artifact]


def _threshold(report: Report) -> dict[str, Any]:
    gated = report.verdict.status is not Status.NOT_GATED
    return {"threshold": report.verdict.threshold} if gated and report.verdict.threshold else {}


def _message(text: str) -> str:
    """Plain text in which braces are no placeholders and brackets no links."""
    lines = "\n".join(visible(line) for line in text.split("\n"))
    return lines.replace("{", "{{").replace("}", "}}").replace("](", "] (")
