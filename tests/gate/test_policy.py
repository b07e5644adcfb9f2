import json
from dataclasses import replace
from datetime import date

import pytest

from tests import samples
from tests.gate.layers import layer, report
from varshift_cli.errors import NothingToMeasureError, UsageError
from varshift_cli.gate import exit_code, judge, judge_report
from varshift_cli.records import (
    Effect,
    Finding,
    FindingLevel,
    Interval,
    LayerRule,
    LayerVerdict,
    Outcome,
    Policy,
    RegimeScores,
    Status,
    Suppression,
    Verdict,
    layer_verdicts,
)
from varshift_cli.report import from_json, render_table, to_json

TODAY = date(2026, 7, 1)
TWO = report(layer("head.bn", 1.4, 1.35, 1.45), layer("body.bn", 1.1, 1.08, 1.12))
NON_FINITE = Finding("VS202", FindingLevel.ERROR, ("head.bn",), "not finite")


def judged(found, policy, **more):
    return judge_report(found, policy, today=TODAY, **more).verdict


def outcomes(verdict):
    return {each.name: each.outcome for each in verdict.layers}


def scored(accuracy, changed=0.0, samples=1000):
    effect = Effect(changed, None, None, RegimeScores(accuracy, None, None), None)
    found = replace(TWO, effect=effect)
    return replace(found, calibration=replace(found.calibration, samples=samples))


@pytest.mark.parametrize("threshold", [None, 1.25, 1.42, 2.0])
def test_a_threshold_alone(threshold):
    """With a threshold and nothing else the verdict has the four keys of the contract alone."""
    found = judge_report(samples.shifted(), Policy(threshold))

    assert found.verdict == judge(found.layers, threshold, found.findings)
    assert list(json.loads(to_json(found))["verdict"]) == [
        "status",
        "threshold",
        "worst_layer",
        "worst_shift",
    ]


def test_undecided_says_how_many_samples():
    """An inconclusive verdict says how many samples would decide."""
    verdict = judge_report(report(layer("a", 1.2, 1.1, 1.3)), max_shift=1.25).verdict

    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.samples_needed > 1000


def test_the_first_rule_that_fits_counts():
    """A layer's own threshold replaces the common one; of several patterns the first counts."""
    policy = Policy(1.25, (LayerRule("head.*", 1.5), LayerRule("*.bn", 1.05)))

    verdict = judged(TWO, policy)

    assert verdict.layers == (
        LayerVerdict("head.bn", 1, Outcome.PASS, 1.5),
        LayerVerdict("body.bn", 1, Outcome.FAIL, 1.05),
    )
    assert (verdict.status, verdict.worst_layer) == (Status.FAIL, "body.bn")


def test_a_rule_alone_gates_its_layers():
    """Without a common threshold only the layers that a pattern fits are judged."""
    verdict = judged(TWO, Policy(layers=(LayerRule("head.*", 1.5),)))

    assert (verdict.status, verdict.threshold) == (Status.PASS, None)
    assert outcomes(verdict) == {"head.bn": Outcome.PASS, "body.bn": Outcome.NOT_GATED}
    assert verdict.worst_layer == "head.bn"


def test_a_rule_that_fits_nothing_is_told():
    """A pattern with a typo does not silently hold nothing to account."""
    verdict = judged(TWO, Policy(2.0, (LayerRule("heda.*", 1.5),)))

    assert verdict.reasons == ("the threshold of layers 'heda.*' fits no layer",)


def test_suppressed_by_pattern():
    """A layer that is set aside does not decide, and is told with its reason and last day."""
    policy = Policy(
        1.25, suppressions=(Suppression("cut off in deployment", "head.*", None, TODAY),)
    )

    verdict = judged(TWO, policy)

    assert (verdict.status, verdict.worst_layer) == (Status.PASS, "body.bn")
    assert outcomes(verdict)["head.bn"] is Outcome.SUPPRESSED
    (told,) = verdict.suppressed
    assert (told.layers, told.reason, told.expires) == (
        ("head.bn",),
        "cut off in deployment",
        "2026-07-01",
    )


def test_suppressed_by_code():
    """A code sets aside the layers of its finding alone; with a pattern, those of both."""
    finding = Finding("VS101", FindingLevel.WARNING, ("head.bn", "tail.bn"), "dropout")
    found = replace(
        report(*(layer(f"{name}.bn", 1.4, 1.35, 1.45) for name in ("head", "tail", "body"))),
        findings=(finding,),
    )

    by_code = judged(found, Policy(1.25, suppressions=(Suppression("ok", code="VS101"),)))
    both = judged(found, Policy(1.25, suppressions=(Suppression("ok", "t*", "VS101"),)))

    assert [each.outcome for each in by_code.layers] == ["suppressed", "suppressed", "fail"]
    assert [each.outcome for each in both.layers] == ["fail", "suppressed", "fail"]


def test_expired_suppressions_no_longer_hold():
    """The day after its last a suppression is told to have expired, and its layers decide."""
    expired = Suppression("for now", "head.*", expires=date(2026, 6, 30))

    verdict = judged(TWO, Policy(1.25, suppressions=(expired,)))

    assert verdict.status is Status.FAIL
    assert verdict.suppressed == ()
    assert verdict.reasons == ("the suppression of head.* (for now) expired on 2026-06-30",)


def test_idle_suppressions_are_told():
    """A suppression that concerns no layer is told, so that it can be taken out."""
    verdict = judged(TWO, Policy(2.0, suppressions=(Suppression("old", "aux.*"),)))

    assert verdict.status is Status.PASS
    assert verdict.reasons == ("the suppression of aux.* (old) concerns no layer",)


def test_all_suppressed_is_no_pass():
    """Where everything is set aside nothing was checked: exit 3, and the report still tells."""
    policy = Policy(1.25, suppressions=(Suppression("all of it", "*"),))

    found = judge_report(TWO, policy)

    assert found.verdict.status is Status.NOT_GATED
    assert exit_code(found.verdict) == 3
    assert "UNCHECKED  no layer was checked: 2 suppressed\n" in render_table(found)
    assert "suppressed: head.bn, body.bn (all of it)\n" in render_table(found)


def test_suppressed_and_unmeasured_is_no_pass():
    """Layers without a figure do not count as checked."""
    found = report(layer("a.bn", None), layer("b.bn", 1.0, 1.0, 1.01))

    verdict = judged(found, Policy(1.25, suppressions=(Suppression("ok", "b.bn"),)))

    assert exit_code(verdict) == 3
    assert verdict.unchecked == "no layer was checked: 1 suppressed, 1 not measured"


def test_nothing_measured_is_no_pass():
    """A report without a single figure is refused, whatever the policy."""
    with pytest.raises(NothingToMeasureError):
        judge_report(report(layer("a", None)), Policy(1.25, (LayerRule("a", 2.0),)))


def test_non_finite_buffers_fail_any_policy():
    """Buffers that are not finite fail, unless that very layer is set aside."""
    found = replace(
        report(layer("head.bn", None), layer("body.bn", 1.0, 1.0, 1.01)), findings=(NON_FINITE,)
    )

    failed = judged(found, Policy(1.25, (LayerRule("body.*", 2.0),)))
    passed = judged(found, Policy(1.25, suppressions=(Suppression("ok", code="VS202"),)))

    assert (failed.status, failed.worst_layer, failed.worst_shift) == (
        Status.FAIL,
        "head.bn",
        None,
    )
    assert outcomes(failed)["head.bn"] is Outcome.FAIL
    assert passed.status is Status.PASS


@pytest.mark.parametrize(
    ("accuracy", "status"),
    [(0.99, Status.PASS), (0.95, Status.INCONCLUSIVE), (0.90, Status.FAIL)],
)
def test_accuracy_is_judged_on_its_interval(accuracy, status):
    """Accuracy fails below the least that is asked, passes above it, both beyond chance."""
    verdict = judged(scored(accuracy), Policy(2.0, min_accuracy=0.95))

    assert verdict.status is status
    assert any("accuracy in eval() is" in each for each in verdict.reasons) is (
        status is not Status.PASS
    )


@pytest.mark.parametrize(
    ("changed", "status"),
    [(0.0, Status.PASS), (0.01, Status.INCONCLUSIVE), (0.05, Status.FAIL)],
)
def test_changed_predictions(changed, status):
    """So is the share of predictions that recalibration would change."""
    verdict = judged(scored(0.99, changed), Policy(max_changed_predictions=0.01))

    assert verdict.status is status


def test_none_changed_is_none():
    """With no change in any sample a limit of zero is kept."""
    assert judged(scored(1.0), Policy(max_changed_predictions=0.0)).status is Status.PASS
    assert judged(scored(1.0), Policy(min_accuracy=1.0)).status is Status.PASS


def test_unknown_accuracy_is_no_pass():
    """An accuracy that was asked for and is unknown leaves nothing to pass; a failure stays one."""
    found = replace(TWO, effect=None)

    unknown = judged(found, Policy(2.0, min_accuracy=0.9))
    failed = judged(found, Policy(1.25, min_accuracy=0.9))

    assert exit_code(unknown) == 3
    assert unknown.unchecked == (
        "accuracy in eval() is unknown, at least 90.0 % was asked: it needs class labels in the "
        "data"
    )
    assert exit_code(failed) == 1


OWN = Effect(
    None,
    None,
    0.1,
    None,
    None,
    metric=RegimeScores(0.9, 0.95, 0.9),
    metric_name="auc",
    metric_interval=Interval(0.85, 0.95),
    r2=RegimeScores(0.5, 0.6, 0.5),
    r2_interval=Interval(0.4, 0.6),
)


@pytest.mark.parametrize(
    ("policy", "status", "reason"),
    [
        (Policy(min_metric=0.85), Status.PASS, None),
        (
            Policy(min_metric=0.9),
            Status.INCONCLUSIVE,
            "auc in eval() is 0.9 (0.85 to 0.95): more samples decide whether at least 0.9",
        ),
        (
            Policy(min_metric=1.5),
            Status.FAIL,
            "auc in eval() is 0.9 (0.85 to 0.95), at least 1.5 was asked",
        ),
        (Policy(min_r2=0.4), Status.PASS, None),
        (
            Policy(min_r2=0.5),
            Status.INCONCLUSIVE,
            "R2 in eval() is 0.5 (0.4 to 0.6): more samples decide whether at least 0.5",
        ),
        (
            Policy(2.0, min_r2=0.7),
            Status.FAIL,
            "R2 in eval() is 0.5 (0.4 to 0.6), at least 0.7 was asked",
        ),
    ],
)
def test_other_figures_are_judged_on_their_interval(policy, status, reason):
    """R2 and a metric of one's own have thresholds of their own, alone or beside others."""
    verdict = judged(replace(TWO, effect=OWN), policy)

    assert policy.gates
    assert verdict.status is status
    assert verdict.reasons == (() if reason is None else (reason,))


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (Policy(2.0, min_r2=-1.0), "targets of a regression"),
        (Policy(2.0, min_metric=-1.0), "--metric file.py:f"),
    ],
)
@pytest.mark.parametrize("effect", [None, replace(OWN, r2=None, metric=None)])
def test_unknown_figures_are_no_pass(policy, needs, effect):
    """However low the threshold: what is unknown was not checked."""
    verdict = judged(replace(TWO, effect=effect), policy)

    assert exit_code(verdict) == 3
    assert needs in verdict.unchecked


def test_a_figure_without_interval_is_undecided():
    """A value of which nobody knows how sure it is decides nothing."""
    found = replace(TWO, effect=replace(OWN, metric_interval=None))

    verdict = judged(found, Policy(min_metric=0.1))

    assert verdict.status is Status.INCONCLUSIVE
    assert "cannot be told from these samples" in verdict.reasons[0]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(min_r2=1.01),
        Policy(min_r2=float("nan")),
        Policy(min_r2=float("-inf")),
        Policy(min_metric=float("inf")),
        Policy(min_metric=float("nan")),
        Policy(0.9),
        Policy(layers=(LayerRule("a", 0.5),)),
        Policy(min_accuracy=98.0),
        Policy(max_changed_predictions=-0.1),
        Policy(min_accuracy=float("nan")),
    ],
)
def test_thresholds_out_of_range(policy):
    """A threshold that nothing can be compared with is refused."""
    with pytest.raises(UsageError):
        judge_report(TWO, policy)


def test_round_trip():
    """Whatever the verdict tells is in the JSON report, and is read back."""
    policy = Policy(
        1.25, (LayerRule("b*", 1.5),), 0.5, 0.9, suppressions=(Suppression("ok", "head.*"),)
    )
    found = judge_report(scored(0.99), policy, baseline=TWO, baseline_source="base.json")

    assert from_json(to_json(found)) == found
    assert found.verdict.baseline is not None


def test_formats_ask_one_function():
    """What a format shows of a layer comes from the threshold where the verdict says no more."""
    plain = Verdict(Status.FAIL, 1.25, "head.bn", 1.4)

    told = layer_verdicts(TWO.layers, plain)

    assert [each.outcome for each in told] == [Outcome.FAIL, Outcome.PASS]
    assert [each.threshold for each in told] == [1.25, 1.25]
