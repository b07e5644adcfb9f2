import math
from dataclasses import replace

from tests import samples
from varshift_cli.records import AttributionShare, Case, Prediction
from varshift_cli.report import FORMATS
from varshift_cli.report.singles import Single, single_dropouts

SHARES = (AttributionShare("body.0.drop", -1.0, 0.013), AttributionShare("in", 0.1))
FORMULA = Prediction("body.0.drop", Case.STRAIGHT, 0.36, 0.35, 0.01, agrees=True)


def attributed(**changes):
    report = samples.shifted()
    third = replace(report.layers[2], attribution=SHARES, prediction=(FORMULA,))
    return replace(report, layers=(*report.layers[:2], replace(third, **changes)))


def test_pairs():
    """Each share is told as a factor, beside what the formula says, largest first."""
    assert single_dropouts(attributed()) == [
        Single(
            "body.0.bn3",
            "body.0.drop",
            "straight",
            math.exp(-1),
            0.36,
            "standard error 1.3 %, as predicted",
        ),
        Single("body.0.bn3", "in", "further up", math.exp(0.1), None, ""),
    ]


def test_prediction_alone():
    """A formula without attribution is told with its own measurement, or why there is none."""
    refused = replace(FORMULA, predicted=None, agrees=None, reason="the noise is not dropout")

    (single,) = single_dropouts(attributed(attribution=None, prediction=(refused,)))

    assert (single.alone, single.predicted) == (0.35, None)
    assert single.remark == "the noise is not dropout"


def test_disagreement():
    """Where the formula fails it is said."""
    off = replace(FORMULA, agrees=False)

    assert single_dropouts(attributed(prediction=(off,)))[0].remark.endswith("not as predicted")


def test_nothing_known():
    """Without attribution there is nothing to tell, and no empty table."""
    assert single_dropouts(samples.shifted()) == []
    assert "by itself" not in FORMATS["markdown"].render(samples.shifted())


def test_formats():
    """Markdown and HTML show the table."""
    cells = "| straight | 0.37 | 0.36 | standard error 1.3 %, as predicted |"

    assert f"| `body.0.bn3` | `body.0.drop` {cells}" in FORMATS["markdown"].render(attributed())
    page = FORMATS["html"].render(attributed())
    assert "<td>straight</td>" in page
    assert "as predicted</td>" in page
