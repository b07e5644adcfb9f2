from dataclasses import replace

from tests import samples
from varshift_cli.records import Change, Interval
from varshift_cli.static import diff_reports


def with_first(report, shift, low, high):
    layer = replace(report.layers[0], shift=shift, shift_interval=Interval(low, high))
    return replace(report, layers=(layer, *report.layers[1:]))


def change_of(was, now):
    base = samples.shifted()
    before, after = with_first(base, *was), with_first(base, *now)
    diff = diff_reports(before, after, ("a.json", "b.json"))
    return next(each for each in diff.layers if each.name == base.layers[0].name).change


def test_beyond_both_intervals():
    """Only a change beyond both intervals counts as one."""
    assert change_of((1.2, 1.1, 1.3), (1.5, 1.31, 1.6)) is Change.WORSE
    assert change_of((1.2, 1.1, 1.3), (1.5, 1.29, 1.6)) is Change.SAME
    assert change_of((1.5, 1.31, 1.6), (1.2, 1.1, 1.3)) is Change.BETTER


def test_unknown():
    """Without an interval nothing is said."""
    base = samples.shifted()
    bare = replace(base.layers[0], shift_interval=None)
    after = replace(base, layers=(bare, *base.layers[1:]))

    diff = diff_reports(base, after, ("a", "b"))

    assert {each.change for each in diff.layers} == {Change.UNKNOWN, Change.SAME}


def test_worse_first():
    """Layers that got worse stand first, the largest change before smaller ones."""
    base = samples.shifted()
    layers = list(base.layers)
    layers[3] = replace(layers[3], shift=3.0, shift_interval=Interval(2.9, 3.1))
    layers[5] = replace(layers[5], shift=9.0, shift_interval=Interval(8.9, 9.1))

    diff = diff_reports(base, replace(base, layers=tuple(layers)), ("a", "b"))

    assert [each.name for each in diff.layers[:2]] == [layers[5].name, layers[3].name]


def test_absent_layers_and_other_data():
    """Layers of one report only are listed, and other data are told of."""
    base = samples.shifted()
    other = replace(
        base, layers=base.layers[1:], calibration=replace(base.calibration, seed=7, samples=10)
    )

    diff = diff_reports(base, other, ("a", "b"))

    assert diff.only_before == (base.layers[0].name,)
    assert any("seed 0, then 7" in note for note in diff.notes)
    assert any("then 10" in note for note in diff.notes)
