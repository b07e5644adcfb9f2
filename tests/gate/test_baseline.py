from dataclasses import replace

import pytest

from tests.gate.layers import layer, report
from varshift_cli.gate import exit_code, judge_report
from varshift_cli.records import Outcome, Policy, Status
from varshift_cli.report import render_table

WAS = report(layer("a", 1.5, 1.45, 1.55), layer("b", 1.1, 1.08, 1.12))


def against(now, max_shift=None, was=WAS):
    return judge_report(now, Policy(max_shift), baseline=was, baseline_source="base.json").verdict


@pytest.mark.parametrize("max_shift", [None, 1.25])
def test_the_same_again_passes(max_shift):
    """What is as it was passes, above the threshold or not."""
    verdict = against(WAS, max_shift)

    assert verdict.status is Status.PASS
    assert verdict.baseline.worse == ()


@pytest.mark.parametrize(
    ("low", "status"), [(1.551, Status.FAIL), (1.55, Status.PASS), (1.4, Status.PASS)]
)
def test_only_beyond_both_intervals(low, status):
    """A layer got worse when its interval lies above the earlier one; touching is not enough."""
    now = report(layer("a", 1.6, low, 1.7), WAS.layers[1])

    assert against(now).status is status
    assert against(now, 1.25).status is status


def test_worse_but_within_the_threshold():
    """With a threshold a layer may get worse up to it."""
    now = report(WAS.layers[0], layer("b", 1.2, 1.18, 1.22))

    assert against(now, 1.25).status is Status.PASS
    assert against(now).status is Status.FAIL
    assert against(now).worst_layer == "b"


def test_known_layers_are_told():
    """What is above the threshold and no worse is known, not passed over in silence."""
    found = judge_report(WAS, Policy(1.25), baseline=WAS, baseline_source="base.json")

    assert [each.outcome for each in found.verdict.layers] == [Outcome.KNOWN, Outcome.PASS]
    assert found.verdict.layers[0].reason == "1.50 in the baseline"
    screen = render_table(found)
    assert (
        "PASS      no layer got worse than in base.json; worst a, shift 1.50 (1.45-1.55)" in screen
    )
    assert "1 layer above the threshold, but no worse than in the baseline" in screen


def test_undecided_and_worse():
    """A layer that got worse, and may be beyond the threshold, is undecided."""
    now = report(WAS.layers[0], layer("b", 1.24, 1.2, 1.28))

    verdict = against(now, 1.25)

    assert (verdict.status, verdict.worst_layer) == (Status.INCONCLUSIVE, "b")
    assert verdict.samples_needed is not None


def test_fine_layers_stop_nobody():
    """However sure it is that a layer moved: below fine it fails nothing."""
    was = report(layer("a", 1.01, 1.005, 1.015))
    now = report(layer("a", 1.03, 1.025, 1.035))

    assert against(now, was=was).status is Status.PASS


def test_another_model():
    """Layers that differ are named; new ones are judged by the threshold alone."""
    now = report(layer("a", 1.5, 1.45, 1.55), layer("new", 1.6, 1.5, 1.7))

    gated, ungated = against(now, 1.25), against(now)

    assert (gated.status, gated.worst_layer) == (Status.FAIL, "new")
    assert (gated.baseline.new, gated.baseline.missing) == (("new",), ("b",))
    assert gated.reasons == (
        "not in the baseline, judged by the threshold alone: new",
        "in the baseline alone: b",
    )
    assert ungated.status is Status.PASS
    assert ungated.layers[1].outcome is Outcome.NOT_GATED


def test_nothing_in_common():
    """A baseline of another model altogether, and no threshold: nothing was checked."""
    verdict = against(report(layer("x", 1.5, 1.45, 1.55)))

    assert exit_code(verdict) == 3
    assert verdict.unchecked == "no layer was checked: 1 without threshold and baseline"


def test_same_name_other_layer():
    """A layer of the same name with other channels is another layer."""
    other = replace(WAS.layers[0], num_features=99)

    assert against(report(other), 1.25).baseline.new == ("a",)


def test_every_call_has_its_own():
    """A layer that is called twice is compared call by call."""
    first, second = (
        replace(layer("a", s, s - 0.01, s + 0.01), call=c) for s, c in ((2, 1), (3, 2))
    )
    now = report(second, replace(first, shift=2.5, shift_interval=second.shift_interval))

    verdict = against(now, was=report(first, second))

    assert [each.outcome for each in verdict.layers] == [Outcome.PASS, Outcome.FAIL]


def test_unknown_intervals_are_undecided():
    """Without an interval on either side nothing is known to be worse, or not."""
    bare = report(layer("a", 1.5), WAS.layers[1])

    assert against(bare).status is Status.INCONCLUSIVE
    assert against(WAS, was=bare).status is Status.INCONCLUSIVE
    assert against(WAS, 2.0, was=bare).status is Status.PASS


def test_other_data_is_told():
    """A baseline that was measured on other data is compared, and the difference is told."""
    other = replace(WAS, calibration=replace(WAS.calibration, data="val.npz  900 samples of x"))

    verdict = against(WAS, was=other)

    assert verdict.reasons == ("the baseline was measured on val.npz, this on calib.npz",)
