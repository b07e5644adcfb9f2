import math
from statistics import NormalDist

import pytest

from tests.gate.layers import layer, report
from varshift_cli.gate import is_settled, judge, samples_needed

NORMAL = NormalDist()


@pytest.mark.parametrize(("shift", "threshold"), [(1.3, 1.25), (1.2, 1.25), (1.9, 2.0)])
def test_decides_four_times_in_five(shift, threshold):
    """At the promised number an interval leaves the threshold on the right side 4 times in 5."""
    width, samples = 0.1, 1000
    around = (shift / math.exp(width), shift * math.exp(width))

    needed = samples_needed(layer("a", shift, *around), threshold, samples)

    # The estimate is normal about the true distance, with the interval's own standard error.
    error = width / 1.96 * math.sqrt(samples / needed)
    distance = abs(math.log(shift / threshold))
    decided = 1 - NORMAL.cdf((1.96 * error - distance) / error)
    assert 0.799 < decided < 0.83  # the number is rounded up, to two digits


def test_four_times_the_samples_for_twice_the_width():
    """The number goes with the square of the interval's width."""
    narrow = samples_needed(layer("a", 1.3, 1.3 * 0.95, 1.3 / 0.95), 1.25, 1000)
    wide = samples_needed(layer("a", 1.3, 1.3 * 0.95**2, 1.3 / 0.95**2), 1.25, 1000)

    assert wide / narrow == pytest.approx(4, rel=0.02)


def test_an_end_that_was_cut_off_is_not_taken_for_narrow():
    """Where the lower end was cut off at 1, the upper one tells the width."""
    needed = samples_needed(layer("a", 1.03, 1.0, 1.12), 1.02, 500)

    exact = 500 * (2.8 / 1.96 * math.log(1.12 / 1.03) / math.log(1.03 / 1.02)) ** 2
    assert exact <= needed <= 1.1 * exact


@pytest.mark.parametrize(
    "undecided", [layer("a", 1.25, 1.2, 1.3), layer("a", 1.3), layer("a", None)]
)
def test_no_number_where_none_can_be_told(undecided):
    """At the very threshold, or without an interval, no number is promised."""
    assert samples_needed(undecided, 1.25, 1000) is None


def test_more_than_there_were():
    """The number is never one that was there already."""
    assert samples_needed(layer("a", 1.3, 1.25, 1.35), 1.25, 1000) > 1000


@pytest.mark.parametrize(
    ("low", "high", "settled"),
    [(1.10, 1.24, False), (1.17, 1.23, True), (1.1, 1.3, False), (1.0, 1.05, True)],
)
def test_settled_only_with_room(low, high, settled):
    """What a slightly wider interval would undo is not settled while more can be drawn."""
    found = report(layer("a", math.sqrt(low * high), low, high))

    assert is_settled(found, lambda each: judge(each.layers, 1.25)) is settled
