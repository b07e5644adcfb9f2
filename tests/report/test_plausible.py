from dataclasses import replace

import pytest

from tests import samples
from varshift_cli.errors import ReportError
from varshift_cli.records import Interval, Level
from varshift_cli.report import refuse_nonsense


@pytest.mark.parametrize("report", [samples.shifted(), samples.healthy(), samples.awkward()])
def test_real_reports_pass(report):
    """What varshift writes is not refused."""
    refuse_nonsense(report)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 0.5}, "layers.0.shift must be at least 1, not 0.5"),
        ({"shift": -3.0}, "layers.0.shift must be at least 1, not -3"),
        ({"num_features": 0}, "layers.0.num_features must be at least 1, not 0"),
        ({"dead_channels": -1}, "layers.0.dead_channels must be at least 0, not -1"),
        ({"shift": 3.0}, "layers.0.level is fine, but a shift of 3 is severe"),
        ({"level": None}, "layers.0.level is null, but a shift of 1.01 is fine"),
        ({"level": Level.MILD}, "layers.0.level is mild, but a shift of 1.01 is fine"),
        ({"shift_interval": Interval(2, 3)}, "layers.0.shift_interval 2 to 3 does not hold"),
        ({"shift_interval": Interval(0.5, 3)}, "layers.0.shift_interval 0.5 to 3 begins below 1"),
    ],
)
def test_layer(changes, message):
    """A layer whose figures cannot be is refused, and the place is named."""
    report = samples.shifted()
    first = replace(report.layers[0], **changes)

    with pytest.raises(ReportError) as caught:
        refuse_nonsense(replace(report, layers=(first, *report.layers[1:])))

    assert caught.value.message.startswith(message)
    assert "scan again" in caught.value.hint


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("calibration", {"samples": -1}, "calibration.samples must be at least 0, not -1"),
        ("effect", {"changed_predictions": 9.4}, "must be 0 to 1, not 9.4"),
        ("verdict", {"threshold": 0.0}, "verdict.threshold must be at least 1, not 0"),
    ],
)
def test_elsewhere(part, changes, message):
    """So is every other figure that has a range."""
    report = samples.shifted()

    with pytest.raises(ReportError, match=message):
        refuse_nonsense(replace(report, **{part: replace(getattr(report, part), **changes)}))


def test_not_measured():
    """A layer without a shift has nothing to contradict."""
    report = samples.shifted()
    first = replace(report.layers[0], shift=None, shift_interval=None, level=None)

    refuse_nonsense(replace(report, layers=(first,)))
