from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from tests import samples
from tests.report.goldens import compare
from varshift_cli.gate import exit_code
from varshift_cli.records import Outcome, Skipped, Status, Verdict, layer_verdicts
from varshift_cli.report import FORMATS
from varshift_cli.report.text import layer_name, visible

render = FORMATS["junit"].render

XSD = etree.XMLSchema(etree.parse(Path(__file__).parent / "schemas" / "junit-10.xsd"))


def suite_of(text):
    return etree.fromstring(text.encode()).find("testsuite")


def faults_of(suite):
    """Name of each case with what it holds: failure, error, skipped, or system-out if green."""
    return [(case.get("name"), case[0].tag) for case in suite.iter("testcase")]


@pytest.mark.parametrize("name", ["failing", "awkward", "known", "passing", "undecided"])
def test_letters(name):
    """The XML, to the letter."""
    compare(f"{name}.xml", render(samples.EVERYTHING[name]))


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_schema(name):
    """Every report is valid by the schema that Jenkins and pytest use, hostile names and all."""
    XSD.assertValid(etree.fromstring(render(samples.EVERYTHING[name]).encode()))


def test_the_schema_refuses():
    """The validator is no rubber stamp."""
    text = render(samples.failing()).replace("<failure", "<failed").replace("</failure", "</failed")

    assert not XSD.validate(etree.fromstring(text.encode()))


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_totals(name):
    """The totals are those of the cases, re-added."""
    text = render(samples.EVERYTHING[name])
    suite = suite_of(text)
    tags = [tag for _, tag in faults_of(suite)]

    assert int(suite.get("tests")) == len(tags)
    assert int(suite.get("failures")) == tags.count("failure")
    assert int(suite.get("errors")) == tags.count("error")
    assert int(suite.get("skipped")) == tags.count("skipped")
    assert set(suite.getparent().attrib.items()) <= set(suite.attrib.items())


def test_a_case_per_layer():
    """Every layer has its case, in execution order: green, red, or not decided."""
    report = samples.failing()
    tags = {
        Outcome.PASS: "system-out",
        Outcome.FAIL: "failure",
        Outcome.INCONCLUSIVE: "error",
    }
    told = layer_verdicts(report.layers, report.verdict)

    verdict, *cases = faults_of(suite_of(render(report)))

    assert verdict == ("verdict", "failure")
    assert cases == [(each.name, tags[each.outcome]) for each in told]
    assert {tag for _, tag in cases} == set(tags.values())


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_red_exactly_when_the_gate_is(name):
    """A file has a failure or an error exactly when varshift exits with another code than 0."""
    report = samples.EVERYTHING[name]
    suite = suite_of(render(report))

    red = int(suite.get("failures")) + int(suite.get("errors")) > 0

    assert red == (exit_code(report.verdict) != 0)


def test_unchecked_is_red():
    """Nothing that should have been checked and was not looks green."""
    report = samples.healthy()
    verdict = replace(report.verdict, unchecked="no layer was checked")

    cases = dict(faults_of(suite_of(render(replace(report, verdict=verdict)))))

    assert cases["verdict"] == "error"


def test_not_gated():
    """Without a gate fine layers are green and all others skipped: nothing has passed."""
    cases = dict(faults_of(suite_of(render(samples.shifted()))))

    assert cases["verdict"] == "skipped"
    assert cases["body.0.bn1"] == "system-out"
    assert cases["body.0.bn3"] == "skipped"


def test_skipped_layers():
    """A layer that was not measured is a skipped case with its reason, unless it is broken."""
    report = replace(samples.passing(), skipped=(Skipped("aux.bn", "no batch reached it"),))
    suite = suite_of(render(report))

    assert faults_of(suite)[-1] == ("aux.bn", "skipped")
    assert suite.findall("testcase")[-1][0].get("message") == "no batch reached it"

    awkward = samples.awkward()
    failed = Verdict(Status.FAIL, 1.25, "aux.bn", None)
    broken = dict(faults_of(suite_of(render(replace(awkward, verdict=failed)))))
    assert broken["aux.bn"] == "failure"


def test_hostile_names():
    """Names come back from the XML as they are shown everywhere."""
    names = [name for name, _ in faults_of(suite_of(render(samples.hostile())))]
    layers = [layer_name(name) for name in samples.HOSTILE]

    assert names == ["verdict", *layers, *layers]
    assert visible(samples.HOSTILE[0]) == samples.HOSTILE[0]
