import json
import re
from dataclasses import replace

import pytest

from tests import samples
from tests.report.goldens import compare
from varshift_cli.records import Interval, Score, Skipped
from varshift_cli.report import Style, fix_to_json, render_fix


@pytest.mark.parametrize("width", [80, 100])
def test_screen(width):
    """What was done, before and after, and what was written, to the letter."""
    compare(f"fix-{width}.txt", render_fix(samples.fix_record(), Style(width)))


def test_dry_run():
    """A dry run says that nothing was written, and proposes no command on a file there is not."""
    screen = render_fix(replace(samples.fix_record(), output=None, sidecar=None))

    assert (
        "dry run      nothing written; the statistics of 37 BatchNorm layers would change\n"
        in screen
    )
    assert "next" not in screen


def test_left_alone_and_notes():
    """Layers that were not repaired are named with the reason, and remarks are passed on."""
    record = samples.fix_record()
    repair = replace(record.repair, skipped=(Skipped("aux.bn", "no batch reached it"),))

    screen = render_fix(replace(record, repair=repair, notes=("prefix module. was stripped",)))

    assert "left alone   aux.bn: no batch reached it\n" in screen
    assert "note         prefix module. was stripped\n" in screen


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "exactly, in one pass over 1,000 samples, with dropout off"),
        ({"windows": 4}, "one pass over 1,000 samples in 4 windows, with dropout off"),
        ({"procedure": "layer by layer"}, "layer by layer over 1,000 samples, with dropout off"),
    ],
)
def test_procedure(changes, text):
    """It is said how the statistics were taken; only one whole pass is called exact."""
    record = samples.fix_record()

    screen = render_fix(replace(record, repair=replace(record.repair, **changes)))

    assert text in screen


def test_next_command():
    """The next command scans the new file with the options that were typed."""
    record = replace(samples.fix_record(), output="out dir/a.pt")

    screen = render_fix(record, typed=("--arch", "m.py:Net"))

    assert "varshift scan 'out dir/a.pt' --arch m.py:Net --max-shift 1.25\n" in screen


@pytest.mark.parametrize(
    ("name", "difference", "colour"),
    [
        ("accuracy", Interval(0.01, 0.03), "1;32"),
        ("accuracy", Interval(-0.03, -0.01), "1;31"),
        ("accuracy", Interval(-0.01, 0.03), None),
        ("loss", Interval(-0.03, -0.01), "1;32"),
        ("loss", Interval(0.01, 0.03), "1;31"),
        ("accuracy", None, None),
    ],
)
def test_no_praise_within_noise(name, difference, colour):
    """A score is coloured better or worse only if its whole interval says so."""
    score = Score(name, "h.npz", 0.5, 0.5, 100, difference)

    screen = render_fix(replace(samples.fix_record(), scores=(score,)), Style(colour=True))

    line = next(line for line in screen.splitlines() if "h.npz" in line)
    assert re.findall(r"\x1b\[(1;3\d)m", line) == ([colour] if colour else [])


def test_held_out_samples_are_told():
    """Which samples judged, and which figures are of the samples that the repair was made from."""
    inside = Score("accuracy", "calib.npz", 0.9, 0.98, 1000, Interval(0.06, 0.1), in_sample=True)
    unseen = Score("accuracy", "held.npz", 0.89, 0.97, 512, Interval(0.05, 0.11))
    drawn = "held.npz  512 samples of x drawn at random, labels y"
    record = replace(samples.fix_record(), scores=(inside, unseen), holdout=drawn)

    screen = render_fix(record, Style(colour=True))

    lines = re.sub(r"\x1b\[[\d;]*m", "", screen).splitlines()
    assert "judged on    held.npz: 512 samples of x drawn at random, labels y" in lines
    told = {line.split()[1]: line for line in lines if line.startswith("accuracy, ")}
    assert told["calib.npz"].endswith("+8.0 points (95 %: +6.0 to +10.0), in-sample")
    assert told["held.npz"].endswith("+8.0 points (95 %: +5.0 to +11.0)")
    coloured = [line for line in screen.splitlines() if "1;32" in line and "accuracy" in line]
    assert ["held.npz" in line for line in coloured] == [True]
    assert [each["in_sample"] for each in json.loads(fix_to_json(record))["scores"]] == [
        True,
        False,
    ]


def test_json():
    """The record as JSON holds every figure."""
    value = json.loads(fix_to_json(samples.fix_record()))

    assert value["schema_version"] == 1
    assert value["output"] == "model.fixed.pt"
    assert value["repair"]["residual"] == 4e-8
    assert len(value["repair"]["layers"]) == 37
    assert value["scores"][0]["difference"] == [0.046, 0.077]
