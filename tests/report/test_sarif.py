import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from tests import samples
from tests.report.goldens import compare
from varshift_cli.causes import CATALOGUE
from varshift_cli.records import Finding, FindingLevel
from varshift_cli.report import FORMATS
from varshift_cli.report.sarif import BEYOND, uri
from varshift_cli.report.text import layer_name

render = FORMATS["sarif"].render

SCHEMA = json.loads(
    (Path(__file__).parent / "schemas" / "sarif-2.1.0.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


def run_of(report):
    (run,) = json.loads(render(report), parse_constant=pytest.fail)["runs"]
    return run


def problems(text):
    return [f"{each.json_path}: {each.message}" for each in VALIDATOR.iter_errors(json.loads(text))]


@pytest.mark.parametrize("name", ["failing", "awkward"])
def test_letters(name):
    """The log, to the letter."""
    compare(f"{name}.sarif", render(samples.EVERYTHING[name]))


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_schema(name):
    """Every report is valid by the official schema."""
    assert problems(render(samples.EVERYTHING[name])) == []


def test_the_schema_refuses():
    """The validator is no rubber stamp."""
    text = render(samples.failing())

    assert problems(text.replace('"level": "error"', '"level": "bad"', 1)) != []
    assert problems(text.replace('"version": "2.1.0"', '"version": "2.0.0"', 1)) != []
    assert problems(text.replace('"results"', '"result"', 1)) != []


def test_location():
    """A result points at the line that calls the dropout, else at the checkpoint."""
    places = {
        each["ruleId"]: (
            each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            each["locations"][0]["physicalLocation"]["region"]["startLine"],
        )
        for each in run_of(samples.failing())["results"]
    }

    assert places == {"VS101": ("model.py", 31), "VS110": ("model.pt", 1)}


def test_location_unknown():
    """A dropout whose line is unknown leaves the checkpoint; a model in memory, no file at all."""
    report = samples.failing()
    dropouts = tuple(replace(each, location=None) for each in report.dropouts)
    (first, *_) = run_of(replace(report, dropouts=dropouts))["results"]
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "model.pt"

    (_, *_, last) = run_of(samples.EVERYTHING["in-memory"])["results"]
    (location,) = last["locations"]
    assert location == {"logicalLocations": [{"fullyQualifiedName": "bn", "kind": "module"}]}


def test_levels():
    """A layer that fails is an error, an undecided one is open, others are as their finding."""
    results = {
        each["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]: each
        for each in run_of(samples.failing())["results"]
    }

    assert results["body.0.bn3"]["level"] == "error"
    assert (results["body.8.bn1"]["kind"], results["body.8.bn1"]["level"]) == ("open", "none")
    assert (results["bn"].get("kind"), results["bn"]["level"]) == (None, "warning")


def test_set_aside():
    """A suppressed layer stays in the log with its reason; one known before is a note."""
    results = {
        each["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]: each
        for each in run_of(samples.known())["results"]
    }

    assert results["body.1.bn3"]["suppressions"] == [
        {"kind": "external", "justification": "waits for the next training"}
    ]
    assert results["body.2.bn3"]["level"] == "note"
    assert results["body.2.bn3"]["properties"]["outcome"] == "known"


def test_rules_are_the_catalogue():
    """Rules carry the texts of the catalogue, and each result points at its own."""
    run = run_of(samples.failing())
    rules = run["tool"]["driver"]["rules"]

    assert [each["id"] for each in rules] == ["VS101", "VS110"]
    for rule in rules:
        assert rule["shortDescription"]["text"] == CATALOGUE[rule["id"]].title
        assert CATALOGUE[rule["id"]].signature in rule["help"]["text"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])


def test_beyond_the_threshold():
    """A layer that fails and that no finding names has a rule of its own."""
    run = run_of(replace(samples.failing(), findings=()))

    assert {each["ruleId"] for each in run["results"]} == {BEYOND}
    assert len(run["results"]) == 13


def test_fingerprints():
    """Each result has a fingerprint of its own, which does not depend on the figures."""
    report = samples.failing()
    moved = replace(
        report, layers=tuple(replace(each, signed=each.signed / 2) for each in report.layers)
    )

    prints = [each["partialFingerprints"]["varshift/v1"] for each in run_of(report)["results"]]

    assert len(prints) == len(set(prints))
    assert prints == [
        each["partialFingerprints"]["varshift/v1"] for each in run_of(moved)["results"]
    ]


def test_hostile_names():
    """Names are logical locations as they are shown; no text holds a link or a placeholder."""
    run = run_of(samples.hostile())
    names = [
        each["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
        for each in run["results"][: len(samples.HOSTILE)]
    ]

    assert names == [layer_name(name) for name in samples.HOSTILE]
    assert all("](" not in each["message"]["text"] for each in run["results"])
    assert "{{0}}" in run["results"][4]["message"]["text"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model.pt", "model.pt"),
        ("my models/a#b?.pt", "my%20models/a%23b%3F.pt"),
        ("/data/a b.pt", "file:///data/a%20b.pt"),
        ("C:\\nets\\a b.pt", "file:///C:/nets/a%20b.pt"),
        ("a:b.pt", "a%3Ab.pt"),
        ("\u4e2d.pt", "%E4%B8%AD.pt"),
        ("\udc80.pt", "%5Cudc80.pt"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
    ],
)
def test_uri(path, expected):
    """Paths are URI references: no scheme but file, nothing left unquoted."""
    assert uri(path) == expected


def test_figures_are_those_of_the_rule():
    """A layer under two rules is told with the factor, and the place, that each is about."""
    report = samples.shifted()
    layer = replace(
        report.layers[5],
        cause="inherited",
        factors=replace(report.layers[5].factors, dropout=0.41, inherited=0.13),
    )
    found = [
        Finding(code, FindingLevel.ERROR, (layer.name,), "") for code in ("VS101", "VS110", "VS210")
    ]
    notes = [Finding("VS211", FindingLevel.NOTE, (layer.name,), "")]
    report = replace(report, layers=(layer,), findings=(*found, *notes))

    told = {each["ruleId"]: each for each in run_of(report)["results"]}

    lines = {code: each["message"]["text"] for code, each in told.items()}
    assert "dropout 0.41, fed by body.1.drop model.py:31" in lines["VS101"]
    assert "inherited 0.13, fed by layers upstream" in lines["VS110"]
    assert "stale 0.99; not gated" in lines["VS210"]
    assert lines["VS211"].endswith("shift 2.79 (2.71-2.87); not gated")
    files = {
        code: each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for code, each in told.items()
    }
    assert (files["VS101"], files["VS110"]) == ("model.py", "model.pt")
