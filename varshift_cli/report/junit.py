"""The report as JUnit XML: a test case per layer, green ones visible.

What JUnit has no word for must not look green: a layer that is undecided, or should have been
checked and was not, is an *error*; one that is set aside, known from the baseline or not measured
is *skipped*, with the reason. The first case is the verdict, so that the file fails when the gate
does, whatever it was asked; the suite's output is the screen of the scan. There are no times: the
report has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from varshift_cli.records import Level, Outcome, Report, Status
from varshift_cli.report.judged import JudgedLayer, judged_layers
from varshift_cli.report.provenance import provenance
from varshift_cli.report.table import render_table
from varshift_cli.report.text import layer_name, visible
from varshift_cli.report.wording import gate_remarks, judgement

_CLASS = "varshift"


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    said: str
    """What stands in the case's output if it is green, else its message."""
    fault: str | None = None
    """``failure``, ``error`` or ``skipped``; green without."""
    kind: str = ""
    """The ``type`` of a fault."""


def to_junit(report: Report) -> str:
    """The report as one test suite, ending in a newline."""
    cases = [_verdict(report), *(_layer(each) for each in judged_layers(report)), *_skipped(report)]
    faults = [each.fault for each in cases]
    totals = {
        "tests": str(len(cases)),
        "failures": str(faults.count("failure")),
        "errors": str(faults.count("error")),
    }
    name = visible(f"varshift {report.checkpoint.path or 'model in memory'}")
    suites = ET.Element("testsuites", {"name": name, **totals})
    suite = ET.SubElement(
        suites, "testsuite", {"name": name, **totals, "skipped": str(faults.count("skipped"))}
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(report):
        ET.SubElement(properties, "property", {"name": key, "value": visible(value)})
    for case in cases:
        _add(suite, case)
    ET.SubElement(suite, "system-out").text = f"\n{render_table(report)}"
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, "unicode") + "\n"


def _add(suite: ET.Element, case: _Case) -> None:
    element = ET.SubElement(suite, "testcase", {"classname": _CLASS, "name": visible(case.name)})
    said = visible(case.said)
    if case.fault is None:
        ET.SubElement(element, "system-out").text = said
    else:
        ET.SubElement(element, case.fault, {"type": visible(case.kind), "message": said})


def _verdict(report: Report) -> _Case:
    said = judgement(report)
    sentence = "; ".join([f"{said.word} {said.sentence}", *gate_remarks(report)])
    if report.verdict.unchecked is not None:
        return _Case("verdict", sentence, "error", "unchecked")
    return {
        Status.PASS: _Case("verdict", sentence),
        Status.FAIL: _Case("verdict", sentence, "failure", "fail"),
        Status.INCONCLUSIVE: _Case("verdict", sentence, "error", "inconclusive"),
        Status.NOT_GATED: _Case("verdict", f"no threshold: {sentence}", "skipped", "not gated"),
    }[report.verdict.status]


def _layer(judged: JudgedLayer) -> _Case:
    code = "" if judged.finding is None else judged.finding.code
    fault, kind = {
        Outcome.PASS: (None, ""),
        Outcome.FAIL: ("failure", code or "max-shift"),
        Outcome.INCONCLUSIVE: ("error", "inconclusive"),
        Outcome.KNOWN: ("skipped", "known"),
        Outcome.SUPPRESSED: ("skipped", "suppressed"),
        Outcome.NOT_MEASURED: ("skipped", "not measured"),
        Outcome.NOT_GATED: ("skipped", "not gated"),
    }[judged.outcome]
    if judged.outcome is Outcome.NOT_GATED and judged.layer.level is Level.FINE:
        fault = None  # measured, and nothing is wrong with it
    return _Case(judged.label, judged.sentence, fault, kind)


def _skipped(report: Report) -> Iterable[_Case]:
    for each in report.skipped:
        yield _Case(layer_name(each.name), each.reason, "skipped", "not measured")


def _properties(report: Report) -> Iterable[tuple[str, str]]:
    yield "verdict", report.verdict.status.value
    if report.verdict.threshold is not None:
        yield "threshold", f"{report.verdict.threshold:g}"
    yield from provenance(report)
