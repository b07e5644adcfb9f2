import json
from dataclasses import replace

import pytest

from tests import samples
from tests.report.goldens import compare
from varshift_cli.records import Skipped
from varshift_cli.report import Style, inspection_to_json, render_inspect

INSPECTED = samples.inspection()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_letters(width):
    """The screen of an inspection, to the letter, at three widths."""
    style = Style(width, fold=width == 80)

    text = render_inspect(INSPECTED, style, typed=("--arch", "model.py:Net", "--data", "c.npz"))

    compare(f"inspect_{width}.txt", text)
    assert max(len(line) for line in text.splitlines()) <= width


def test_json():
    """The same as JSON: every field of the record, and nothing that is not JSON."""
    value = json.loads(inspection_to_json(INSPECTED))

    assert value["schema_version"] == 1
    assert value["order"] == list(INSPECTED.order)
    assert value["layers"][1] == {
        "name": "layer1.0.bn1",
        "kind": "BatchNorm2d",
        "num_features": 64,
        "eps": 1e-5,
        "call": 1,
        "location": "models/net.py:34",
        "dropouts": [{"name": "layer1.0.drop", "case": "b"}],
        "upstream": [],
    }
    assert value["dropouts"][0]["reaches"] == ["layer1.0.bn1", "layer1.0.bn2"]
    assert value["skipped"][0] == {"name": "aux.bn", "reason": "no batch reached it"}
    assert value["unwritten"][0]["name"] == "shared"


def test_last_line_says_what_next():
    """The last command is the one to run next, with the user's own options."""
    text = render_inspect(INSPECTED, Style(200), typed=("--data", "my data.npz"))

    assert text.splitlines()[-1].startswith(
        "next         varshift scan model.pt --data 'my data.npz'"
    )


def test_names_of_others_are_made_visible():
    """No name out of a file reaches the terminal raw."""
    odd = replace(INSPECTED, skipped=(Skipped("a\x1b[2Jb", "why\n"),), notes=("x\ry",))

    text = render_inspect(odd)

    assert "\x1b" not in text
    assert "\r" not in text
    assert "a\\x1b[2Jb: why\\x0a" in text
