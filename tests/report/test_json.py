import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import samples
from tests.report.goldens import compare
from varshift_cli.errors import ReportError
from varshift_cli.records import SCHEMA_VERSION, ChannelFigures, Interval, Report
from varshift_cli.report import fix_to_json, from_json, to_json

REPORTS = {
    "shifted": samples.shifted(),
    "healthy": samples.healthy(),
    "awkward": samples.awkward(),
}

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
SCALARS = {
    Any: JSON_VALUES,
    float: NUMBERS,
    int: st.integers(),
    str: st.text(st.characters(), max_size=8),
    bool: st.booleans(),
    Interval: st.tuples(NUMBERS, NUMBERS).map(lambda ends: Interval(*sorted(ends))),
}


def anything(kind):
    """Whatever a record can hold at a place of this type."""
    if kind in SCALARS:
        return SCALARS[kind]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{each.name: anything(hints[each.name]) for each in fields(kind)})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    inner = [each for each in get_args(kind) if each not in {NoneType, Ellipsis}]
    if get_origin(kind) is tuple:
        return st.lists(anything(inner[0]), max_size=2).map(tuple)
    if get_origin(kind) is Mapping:
        return st.dictionaries(st.text(max_size=8), anything(inner[1]), max_size=2)
    return st.none() | anything(inner[0])


def golden_value():
    return json.loads(to_json(samples.shifted()))


def with_value(path, value):
    """The sample report as JSON text with one value replaced."""
    whole = golden_value()
    place = whole
    *parents, last = path
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(whole)


@pytest.mark.parametrize("name", ["shifted", "awkward"])
def test_letters(name):
    """The JSON report, to the letter."""
    compare(f"{name}.json", to_json(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_round_trip(name):
    """A report read back is the report that was written."""
    report = REPORTS[name]

    assert from_json(to_json(report)) == report


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(anything(Report).map(lambda report: replace(report, schema_version=SCHEMA_VERSION)))
def test_round_trip_of_anything(report):
    """Whatever the records can hold, JSON holds, and gives back."""
    text = to_json(report)

    assert from_json(text) == report
    assert to_json(from_json(text)) == text


def test_key_order():
    """Keys come in the order of the schema, additional ones after them."""
    value = golden_value()

    assert list(value) == [
        "schema_version",
        "varshift_version",
        "checkpoint",
        "calibration",
        "buffers",
        "layers",
        "dropouts",
        "skipped",
        "findings",
        "remedies",
        "effect",
        "verdict",
        "unknown",
    ]
    assert list(value["layers"][0])[:7] == [
        "name",
        "kind",
        "num_features",
        "eps",
        "call",
        "shift",
        "shift_interval",
    ]
    assert list(value["layers"][0])[18] == "attribution_residual"


def test_shapes():
    """Intervals are pairs, enums are words, and what is unknown is null."""
    layer = golden_value()["layers"][2]

    assert layer["level"] == "severe"
    assert layer["shift_interval"] == pytest.approx([2.83824, 3.00176])
    assert layer["factor_intervals"]["batch"] is None
    assert layer["dropouts"] == [{"name": "body.0.drop", "case": "a"}]
    assert layer["attribution"] is None


def test_channels():
    """Figures of channels are there on request, and then on one line each."""
    figures = ChannelFigures(*[(0.5,) * 300] * 8)
    report = samples.shifted()
    report = replace(report, layers=(replace(report.layers[0], channels=figures),))

    text = to_json(report)

    assert '"channels"' not in to_json(samples.shifted())
    assert from_json(text) == report
    assert max(len(line) for line in text.splitlines()) > 1000


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(bad):
    """NaN and infinity are written as null, with the reason; the result is strict JSON."""
    report = samples.shifted()
    layer = replace(report.layers[0], shift=bad, signed_interval=Interval(0.5, bad))
    report = replace(report, layers=(layer,))

    value = json.loads(to_json(report), parse_constant=pytest.fail)

    assert value["layers"][0]["shift"] is None
    assert value["layers"][0]["signed_interval"] is None
    assert value["unknown"]["layers.0.shift"] == f"not a finite number: {bad}"
    assert "layers.0.signed_interval" in value["unknown"]


def test_not_finite_channels():
    """A channel whose figure is not finite comes back as NaN, the others as they were."""
    figures = ChannelFigures(*[(0.5, math.nan)] * 8)
    report = samples.shifted()
    report = replace(report, layers=(replace(report.layers[0], channels=figures),))

    channels = from_json(to_json(report)).layers[0].channels

    assert channels.running_var[0] == 0.5
    assert math.isnan(channels.running_var[1])


def test_safe_on_a_terminal():
    """No byte of a JSON report can act on a terminal, whatever the names hold."""
    report = samples.awkward()
    report = replace(report, layers=(replace(report.layers[0], name="\x7f\x9b31m\udc80"),))

    text = to_json(report)

    assert text.isascii()
    assert {each for each in text if not each.isprintable()} == {"\n"}
    assert from_json(text) == report


def test_later_keys_are_passed_over():
    """A key that a later version of the same schema added is no error."""
    whole = golden_value()
    whole["novelty"] = 1
    whole["layers"][0]["novelty"] = [1]

    assert from_json(json.dumps(whole)) == samples.shifted()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (to_json(samples.shifted())[:5000], "not valid JSON"),
        ("[]", "not a varshift report"),
        ("{}", "not a varshift report"),
        ('{"schema_version": 2}', "schema_version 2; this varshift reads 1"),
        ('{"schema_version": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema_version": 1}', "the report lacks varshift_version"),
        (fix_to_json(samples.fix_record()), "not the report of a scan: it has no layers"),
    ],
)
def test_no_report(text, message):
    """What is no report, or another version's, is refused in one sentence."""
    with pytest.raises(ReportError, match=message):
        from_json(text)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("layers",), {}, "layers must be a list, not {}"),
        (("layers", 0), 3, "layers.0 must be an object, not 3"),
        (("layers", 0, "name"), None, "layers.0.name must be a string, not None"),
        (("layers", 0, "shift"), "2", "layers.0.shift must be a number, not '2'"),
        (("layers", 0, "shift"), True, "layers.0.shift must be a number, not True"),
        (("layers", 0, "shift"), 10**400, "layers.0.shift is too large"),
        (("layers", 0, "call"), 1.5, "layers.0.call must be a whole number, not 1.5"),
        (("layers", 0, "shift_interval"), [2, 1], "low <= high"),
        (("layers", 0, "shift_interval"), [2], r"must be \[low, high\]"),
        (("layers", 0, "level"), "awful", "must be one of fine, mild, strong, severe"),
        (("remedies",), [], "remedies must be an object"),
        (("verdict", "status"), "PASS", "must be one of pass, fail"),
        (("dropouts", 0, "reaches"), "bn", "dropouts.0.reaches must be a list"),
        (("findings", 0, "message"), ["x" * 99], r"must be a string, not \['xxx"),
    ],
)
def test_nonsense(path, value, message):
    """A report edited into nonsense is refused, naming the place."""
    with pytest.raises(ReportError, match=message):
        from_json(with_value(path, value))


def test_missing_key():
    """A key that is missing is named."""
    whole = golden_value()
    del whole["layers"][3]["factors"]["dropout"]

    with pytest.raises(ReportError, match=r"the report lacks layers\.3\.factors\.dropout"):
        from_json(json.dumps(whole))
