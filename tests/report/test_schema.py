import json
from pathlib import Path

import jsonschema
import pytest
import torch

import varshift_cli.report
from tests import samples
from tests.nets import ConvNet, warmed_up
from tests.report import schema
from varshift_cli import scan
from varshift_cli.report import from_json, to_json

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.json"))


def closed(value):
    """A schema with no room for keys that it does not name."""
    if isinstance(value, list):
        return [closed(each) for each in value]
    if not isinstance(value, dict):
        return value
    inner = {key: closed(each) for key, each in value.items()}
    if value.get("type") == "object" and "additionalProperties" not in value:
        inner["additionalProperties"] = False
    return inner


PUBLISHED = json.loads(schema.PATH.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(closed(PUBLISHED))


def problems(text):
    return [f"{each.json_path}: {each.message}" for each in VALIDATOR.iter_errors(json.loads(text))]


@pytest.fixture(scope="module")
def scanned():
    """A real scan of a small net, channels and all."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 6, 6)
    net = warmed_up(ConvNet(), x)
    return scan(net, [(x, torch.zeros(64, dtype=torch.int64))], channels=True)


def test_in_step():
    """The shipped schema is what the records say: python -m tests.report.schema --update."""
    assert schema.PATH.read_text(encoding="utf-8") == schema.text()


def test_shipped():
    """The schema lies in the package, and is one itself."""
    assert schema.PATH.parent == Path(varshift_cli.report.__file__).parent
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_goldens(path):
    """Every golden report is valid, and has no key that the schema does not describe."""
    assert problems(path.read_text(encoding="utf-8")) == []


def test_scan(scanned):
    """So is the report of a real scan, with channels."""
    assert scanned.layers[0].channels is not None
    assert problems(to_json(scanned)) == []


def test_scan_round_trip(scanned):
    """A real scan comes back as it was, to the last digit."""
    assert from_json(to_json(scanned)) == scanned


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("layers", 0, "shift"), 0.5),
        (("layers", 0, "shift"), "2"),
        (("layers", 0, "shift_interval"), [1.0]),
        (("layers", 0, "dropouts", 0, "case"), "c"),
        (("effect", "changed_predictions"), 1.5),
        (("schema_version",), 2),
        (("verdict", "status"), "passed"),
        (("novelty",), 1),
    ],
)
def test_refuses(path, value):
    """The schema is no rubber stamp."""
    whole = json.loads(to_json(samples.shifted()))
    whole["layers"] = whole["layers"][2:]
    place = whole
    *parents, last = path
    for key in parents:
        place = place[key]
    place[last] = value

    assert len(problems(json.dumps(whole))) == 1


def test_every_field_is_described_once():
    """Ranges stand at fields that there are, and every record of a report has its definition."""
    for kind, ranges in schema.RANGES.items():
        described = PUBLISHED["$defs"][kind.__name__]["properties"]
        assert set(ranges) <= set(described)
    assert {"LayerRecord", "Factors", "DropoutRecord", "Finding"} <= set(PUBLISHED["$defs"])
