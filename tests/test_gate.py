import math
from dataclasses import replace

import pytest

from tests import samples
from varshift_cli.errors import NothingToMeasureError, UsageError
from varshift_cli.gate import exit_code, judge
from varshift_cli.records import Finding, FindingLevel, Interval, Status, Verdict

NON_FINITE = Finding("VS202", FindingLevel.ERROR, ("bn7",), "not finite")


def layer(name, shift, low=None, high=None):
    interval = None if low is None else Interval(low, high)
    return replace(samples.shifted().layers[0], name=name, shift=shift, shift_interval=interval)


def test_interval_above_fails():
    """A layer whose whole interval lies above the threshold fails the gate, the worst is named."""
    layers = [layer("a", 1.5, 1.4, 1.6), layer("b", 1.9, 1.8, 2.0), layer("c", 1.0, 1.0, 1.1)]

    assert judge(layers, 1.25) == Verdict(Status.FAIL, 1.25, "b", 1.9)


def test_point_above_is_not_enough():
    """A shift beyond the threshold does not fail while the interval reaches down to it."""
    verdict = judge([layer("a", 1.3, 1.2, 1.4)], 1.25)

    assert verdict == Verdict(Status.INCONCLUSIVE, 1.25, "a", 1.3)


def test_point_below_is_not_enough():
    """A shift within the threshold does not pass while the interval reaches beyond it."""
    assert judge([layer("a", 1.2, 1.1, 1.3)], 1.25).status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (1.0, 1.25, Status.PASS),
        (1.25, 1.25, Status.PASS),
        (1.25, 1.3, Status.INCONCLUSIVE),
        (math.nextafter(1.25, 2), 1.3, Status.FAIL),
    ],
)
def test_edges(low, high, status):
    """An interval that ends at the threshold passes; one that begins there is undecided."""
    assert judge([layer("a", high, low, high)], 1.25).status is status


def test_pass_names_the_worst():
    """A pass names the worst layer of all."""
    layers = [layer("a", 1.1, 1.0, 1.2), layer("b", 1.15, 1.1, 1.2)]

    assert judge(layers, 1.25) == Verdict(Status.PASS, 1.25, "b", 1.15)


def test_failure_beats_indecision():
    """One failing layer decides, even if an undecided one has the larger shift."""
    layers = [layer("undecided", 1.9, 1.1, 3.0), layer("failing", 1.4, 1.3, 1.5)]

    assert judge(layers, 1.25) == Verdict(Status.FAIL, 1.25, "failing", 1.4)


def test_no_interval_is_undecided():
    """A shift whose uncertainty is unknown can neither pass nor fail."""
    assert judge([layer("a", 3.0)], 1.25).status is Status.INCONCLUSIVE
    assert judge([layer("a", 1.0)], 1.25).status is Status.INCONCLUSIVE


def test_unmeasured_layers_do_not_decide():
    """A layer without a shift is passed over where others were measured."""
    layers = [layer("a", None), layer("b", 1.1, 1.0, 1.2)]

    assert judge(layers, 1.25) == Verdict(Status.PASS, 1.25, "b", 1.1)


def test_non_finite_buffers_fail():
    """Non-finite buffers fail a gate by themselves, whatever was measured."""
    for layers in ([], [layer("a", 1.0, 1.0, 1.01)]):
        assert judge(layers, 1.25, [NON_FINITE]) == Verdict(Status.FAIL, 1.25, "bn7", None)


def test_without_threshold_nothing_is_judged():
    """Without a threshold the verdict only names the worst layer, non-finite buffers or not."""
    layers = [layer("a", 9.0, 8.0, 10.0)]

    assert judge(layers, None) == Verdict(Status.NOT_GATED, None, "a", 9.0)
    assert judge(layers, None, [NON_FINITE]).status is Status.NOT_GATED
    assert judge([], None, [NON_FINITE]) == Verdict(Status.NOT_GATED, None, None, None)


@pytest.mark.parametrize("max_shift", [None, 1.25])
@pytest.mark.parametrize("layers", [[], [layer("a", None)]])
def test_nothing_measured_is_no_pass(layers, max_shift):
    """Where nothing was measured there is no verdict, gated or not."""
    with pytest.raises(NothingToMeasureError) as caught:
        judge(layers, max_shift)

    assert caught.value.exit_code == 3


@pytest.mark.parametrize("threshold", [0.99, 0.0, -1.0, math.nan, math.inf])
def test_threshold_must_be_a_ratio(threshold):
    """A threshold that no shift can be compared with is refused."""
    with pytest.raises(UsageError, match="at least 1"):
        judge([layer("a", 1.0, 1.0, 1.0)], threshold)


def test_exit_codes():
    """Every status has its exit code; only a failed gate is 1."""
    codes = {status: exit_code(Verdict(status, None, "a", 1.1)) for status in Status}

    assert codes == {
        Status.PASS: 0,
        Status.NOT_GATED: 0,
        Status.FAIL: 1,
        Status.INCONCLUSIVE: 4,
    }


def test_nothing_measured_exits_3():
    """A scan whose layers have no shift passes for no success, though nothing is gated."""
    verdict = judge([layer("a", None)], None, [NON_FINITE])

    assert (verdict.status, exit_code(verdict)) == (Status.NOT_GATED, 3)


def test_dead_layers_are_named():
    """Where every channel is dead the message says so, and of which layer."""
    dead = replace(layer("a", None), dead_channels=4, num_features=4)

    with pytest.raises(NothingToMeasureError, match="every channel of a is dead"):
        judge([dead], None)
    with pytest.raises(NothingToMeasureError, match="a and 1 more BatchNorm layers is dead"):
        judge([dead, replace(dead, name="b")], 1.25)
