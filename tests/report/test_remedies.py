"""The remedies that were tried, on the screen and in the pages."""

import re
from dataclasses import replace

from tests import samples
from varshift_cli.records import Remedy
from varshift_cli.report import render_table, to_json
from varshift_cli.report.formats import FORMATS
from varshift_cli.report.json import from_json

BASIS = "today's weights, 128 samples"
TRIED = (
    Remedy("Recalibrate: recompute", "varshift fix model.pt --recalibrate", False, 1.0, 1.0, BASIS),
    Remedy("Correct: take out", "varshift fix model.pt --correct", False, 1.05, 1.02, BASIS),
    Remedy("Move the dropout", "model.py:31: take it out", True, 1.0, 1.0, BASIS),
    Remedy("Uout(0.1) in place of dropout", "model.py:31", True, 1.004, 1.001, BASIS),
    Remedy("Drop less: p = 0.062 in place of 0.5", "model.py:31", True, 1.15, 1.03, BASIS),
    Remedy("Gaussian noise", "model.py:31", True, 3.58, 1.66, BASIS),
)


def tried():
    return replace(samples.shifted(), remedies={**samples.shifted().remedies, "VS101": TRIED})


AT_ONCE = "without training: the shift that each leaves, in the worst layer and in the mean"
BY_TRAINING = (
    "by training again only: eval() is no better before; shifts are those of today's weights"
)


def test_screen():
    """Those without training, then the two best with, told apart; the rest counted."""
    lines = render_table(tried()).splitlines()

    first = next(index for index, line in enumerate(lines) if line.startswith("Remedies"))
    assert lines[first : first + 7] == [
        "Remedies  " + AT_ONCE,
        "          1.00  1.00  Recalibrate",
        "          1.05  1.02  Correct",
        "          " + BY_TRAINING,
        "          1.00  1.00  Move the dropout, and train again",
        "          1.00  1.00  Uout(0.1) in place of dropout, and train again",
        "          2 more, up to 3.58 for Gaussian noise; JSON has all, with file and line",
    ]


def test_screen_without_a_repair():
    """Where nothing but training helps, the block says so in its head."""
    report = replace(samples.shifted(), remedies={"VS101": TRIED[2:]})

    assert "Remedies  " + BY_TRAINING in render_table(report).splitlines()


def test_no_block_without_trials():
    """Remedies that were not tried claim no figures."""
    assert "Remedies" not in render_table(samples.shifted())


def test_pages():
    """Markdown and HTML give each remedy's shift, and say what it holds for."""
    for name in ("markdown", "html"):
        page = FORMATS[name].render(tried())
        left = r"leaves shift 1\.05 at worst, 1\.02 in the mean, with today.+s weights"
        assert re.search(left, page), name
        trained = r"shift 1\.15 at worst, .+ 128 samples; eval\(\) gains only by training again"
        assert re.search(trained, page), name
        assert not re.search(r"leaves shift 1\.15", page), name


def test_json_gives_them_back():
    """Figures and basis survive JSON."""
    assert from_json(to_json(tried())).remedies["VS101"] == TRIED
