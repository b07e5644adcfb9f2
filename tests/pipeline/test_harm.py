"""When a repair is told to do harm: by the decisive figure, or by another beside it."""

from __future__ import annotations

import pytest

from varshift_cli.pipeline.choice import harm
from varshift_cli.records import Interval, Score


def score(name: str, change: float, half: float) -> Score:
    return Score(name, "held-out", 0.9, 0.9 + change, 500, Interval(change - half, change + half))


FALLS = score("metric", -0.1, 0.3)
"""Within its noise."""


@pytest.mark.parametrize("name", ["R2", "accuracy"])
def test_another_figure_tells_where_the_metric_falls_within_its_noise(name: str) -> None:
    """A metric is known on few groups; what samples tell one by one is known better."""
    worse = score(name, -0.15, 0.05)
    assert harm([FALLS, worse]) is worse
    assert harm([FALLS, score(name, -0.15, 0.2)]) is None
    assert harm([FALLS, score("loss", 0.15, 0.05)]) is None


def test_the_metric_goes_before_all_others() -> None:
    """It falls beyond noise: harm, whatever the others do. It does not fall: none."""
    lost = score("metric", -0.1, 0.05)
    assert harm([lost, score("accuracy", 0.2, 0.1)]) is lost
    assert harm([score("metric", 0.0, 0.3), score("accuracy", -0.2, 0.1)]) is None
    assert harm([]) is None
