from dataclasses import replace

import pytest

from tests.report.goldens import compare
from varshift_cli.records import Finding, FindingLevel, LintReport, StoredLayer
from varshift_cli.report import Style, lint_to_json, render_lint

LAYERS = tuple(
    StoredLayer(f"body.{index}.bn", 64, 4800, 0.031, 0.87, 2.4, 0.61, 0) for index in range(12)
)
BROKEN = Finding(
    "VS202",
    FindingLevel.ERROR,
    ("body.10.bn",),
    "running statistics of 1 layer are not finite, or a variance is negative: eval() returns NaN "
    "or nonsense",
    {"channels": {"body.10.bn": [3]}},
)
DEAD = Finding(
    "VS403", FindingLevel.NOTE, ("body.2.bn",), "2 of 64 channels of 1 layer are dead", {}, ("x",)
)
CLEAN = LintReport(
    "0.1.0", "nets/model one.pt", "zip", 1_049_450_832, 874_841, 600, LAYERS, (), notes=("a note",)
)
SUSPECT = replace(
    CLEAN,
    layers=(
        *LAYERS[:10],
        replace(
            LAYERS[10],
            variance_low=None,
            variance_median=None,
            variance_high=None,
            mean_largest=None,
            codes=("VS202",),
        ),
        LAYERS[11],
    ),
    findings=(BROKEN, DEAD),
)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_screens(width):
    """The screens are those in the goldens, and none is wider than it was asked to be."""
    text = render_lint(SUSPECT, Style(width=width, fold=True))

    compare(f"lint-{width}.txt", text)
    assert max(map(len, text.splitlines())) <= width


def test_clean():
    """Without a finding the verdict says what is not known yet, and what to run."""
    text = render_lint(CLEAN)

    assert "CLEAN" in text
    assert text.splitlines()[-1].startswith("next      varshift scan 'nets/model one.pt'")


def test_all():
    """--all shows every layer, else those that tell something come first."""
    assert "4 more" in render_lint(SUSPECT)
    assert "body.10.bn" in render_lint(SUSPECT)
    assert "more;" not in render_lint(SUSPECT, all_layers=True)


def test_json_reasons():
    """What is not finite is null."""
    assert '"variance_low": null' in lint_to_json(SUSPECT)
