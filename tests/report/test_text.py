import math

import pytest

from varshift_cli.records import Interval, Level
from varshift_cli.report import text
from varshift_cli.report.bars import SCALES, Scale


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("layer1.0.bn2", "layer1.0.bn2"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\u202eabc", "\\u202eabc"),
        ("::error::x", "\\x3a:error::x"),
        ("a ::error::x", "a \\x3a:error::x"),
        ("std::vector", "std::vector"),
        ("x##[error]x", "x#\\x23[error]x"),
        ("\U000e0041", "\\U000e0041"),
        ("\udc80", "\\udc80"),
        ("\u4e2d\u6587 \N{PACKAGE} é", "\u4e2d\u6587 \N{PACKAGE} é"),
    ],
)
def test_visible(raw, shown):
    """What cannot be seen is written out; what can is left alone."""
    assert text.visible(raw) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "1.00"),
        (2.916, "2.92"),
        (99.994, "99.99"),
        (132.4, "132"),
        (3e8, "3e+08"),
        (0.414, "0.41"),
        (0.0312, "0.031"),
        (math.inf, "inf"),
    ],
)
def test_ratio(value, shown):
    """Ratios have two digits where that tells something, and stay short where not."""
    assert text.ratio(value) == shown


def test_interval():
    """An interval is a range; an unknown one is nothing."""
    assert text.interval(Interval(2.84, 3.0)) == "2.84-3.00"
    assert text.interval(None) == ""


def test_count():
    """Numbers agree with their nouns."""
    assert text.count(1, "layer") == "1 layer"
    assert text.count(1000, "sample") == "1,000 samples"
    assert text.count(2, "batch", "batches") == "2 batches"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shift", [1.0, 1.04, 1.3, 2.0, 2.49, 2.5, 2.51, 50.0, math.inf])
def test_bars_are_as_wide_as_their_column(scale, shift):
    """A bar fills its column, whatever the shift."""
    for each in (scale, Scale(scale.per_unit, scale.cells, ascii_only=True)):
        bar = each.bar(shift, Level.of(shift))

        assert bar.cell_len == each.width == each.header().cell_len
        assert bar.plain.isascii() == (each.ascii_only or not each.cells)


def test_bars_are_linear():
    """Twice the excess over 1 is a bar of twice the length."""
    scale = SCALES[0]

    def length(shift):
        return scale.bar(shift, Level.of(shift)).plain.count("━")

    assert [length(1.25), length(1.5), length(2.0)] == [4, 8, 16]


def test_bars_leave_the_scale_with_an_arrow():
    """A shift beyond the scale ends in an arrow, one within it does not."""
    assert SCALES[0].bar(2.6, Level.SEVERE).plain.endswith("▶")
    assert not SCALES[0].bar(2.5, Level.SEVERE).plain.endswith("▶")
