"""What is said of dropout before BatchNorm."""

from dataclasses import replace

import pytest

from tests import samples
from varshift_cli.diagnosis.noise import inherited, noises
from varshift_cli.diagnosis.observations import Observations, spanned
from varshift_cli.records import (
    AttributionShare,
    BuffersRecord,
    Case,
    DropoutLink,
    DropoutRecord,
    FactorIntervals,
    Interval,
)


def hit(name: str, dropout: float):
    """A layer straight behind a dropout, with this dropout factor."""
    layer = samples.shifted().layers[0]
    return replace(
        layer,
        name=name,
        factors=replace(layer.factors, dropout=dropout),
        factor_intervals=FactorIntervals(None, None, None, None),
        dropouts=(DropoutLink("drop", Case.STRAIGHT),),
    )


def told(*factors: float):
    layers = [hit(f"bn{index}", factor) for index, factor in enumerate(factors)]
    (found,) = noises(Observations(layers, (), BuffersRecord(), ()), layers)
    return found


def test_layers_that_differ():
    """Where layers differ, the lowest and the highest are named, not a mean that none has."""
    found = told(0.38, 0.85, 0.41)

    assert found.message == (
        "dropout straight before BatchNorm, 3 layers: with it off, as in eval(), variance is "
        "0.38 to 0.85 of that in training"
    )
    assert (found.evidence["lowest"], found.evidence["highest"]) == (0.38, 0.85)


def test_layers_alike():
    """Where they hardly differ, one figure stands for all."""
    assert told(0.40, 0.42).message.endswith("variance is about 0.41 of that in training")


@pytest.mark.parametrize(
    ("factors", "text"),
    [
        ([0.5], "about 0.50"),
        ([1.04, 1.0], "about 1.02"),
        ([0.7, 1.8], "0.70 to 1.80"),
        ([0.5, 65025.0], "0.50 to 65,025"),
        ([130.0, 250.0], "130 to 250"),
    ],
)
def test_spanned(factors, text):
    """A range, or one figure where it would be the same twice."""
    assert spanned(factors) == text


@pytest.mark.parametrize(
    ("named", "end"),
    [(True, "goes when those are repaired"), (False, "is off by itself beyond chance")],
)
def test_passed_on_from_where(named, end):
    """VS110 promises a repair of layers above only where one of them was found to be off."""
    layer = hit("bn", 1.0)
    layer = replace(layer, cause="inherited", factors=replace(layer.factors, inherited=1.3))

    (found,) = inherited([layer], named=named)

    assert found.message.endswith(end)


def passed_on(name: str, dropout: float, *, interval: Interval | None = None):
    """A layer that receives the most of its shift, and has this dropout factor of its own."""
    layer = hit(name, dropout)
    return replace(
        layer,
        cause="inherited",
        factors=replace(layer.factors, stale=1.0, inherited=0.13),
        factor_intervals=FactorIntervals(None, None, interval, None),
    )


@pytest.mark.parametrize(
    ("layers", "end"),
    [
        (
            [passed_on("a", 0.38), passed_on("b", 0.42), passed_on("c", 1.0)],
            (
                "that part goes when those are repaired; 2 of them are off by themselves as well "
                "(E/R 0.38 to 0.42 without that part), until they are repaired too"
            ),
        ),
        (
            [passed_on("a", 0.4)],
            (
                "that part goes when those are repaired; it is off by itself as well (E/R about "
                "0.40 without that part), until it is repaired too"
            ),
        ),
        (
            [passed_on("a", 0.4, interval=Interval(0.1, 1.2)), passed_on("b", 1.04)],
            "above; goes when those are repaired",
        ),
    ],
)
def test_what_stays(layers, end):
    """VS110 promises that a shift goes only as far as it comes from above."""
    (found,) = inherited(layers, named=True)

    assert found.message.endswith(end)


def test_buffers_that_allow_for_dropout_leave_nothing():
    """VS110: where stale and dropout cancel, the layer is sound once those above are."""
    layer = passed_on("a", 0.4)

    (found,) = inherited([replace(layer, factors=replace(layer.factors, stale=2.5))], named=True)

    assert found.message.endswith("above; goes when those are repaired")
    assert found.evidence["of_their_own"] == {}


def shared_out(layer, *shares: float):
    """The layer with what single dropouts do to it, as ln."""
    named = [AttributionShare(f"drop{i}", share, None) for i, share in enumerate(shares)]
    return replace(layer, attribution=tuple(named))


TWO = tuple(DropoutRecord(name, "dropout", 0.5, None, ()) for name in ("drop", "other"))


THROUGH = DropoutLink("drop", Case.THROUGH_WEIGHTS)


def told_of(*layers, dropouts=TWO):
    (found,) = noises(Observations(layers, dropouts, BuffersRecord(), ()), layers)
    return found


def test_dropouts_against_each_other():
    """VS101: what two opposite dropouts leave is told apart from what the others do."""
    found = told_of(hit("a", 0.4), hit("b", 0.5), shared_out(hit("c", 1.07), -0.5, 0.56))

    assert found.message == (
        "dropout straight before BatchNorm, 3 layers: with it off, as in eval(), variance is "
        "0.40 to 0.50 of that in training; where dropouts work against each other, in c "
        "(0.61 x 1.75), it is about 1.07"
    )
    assert (found.evidence["lowest"], found.evidence["highest"]) == (0.4, 0.5)
    assert found.evidence["against_each_other"] == {"c": 1.07}


def test_nothing_but_dropouts_against_each_other():
    """VS101: then the message says so first."""
    found = told_of(shared_out(hit("c", 1.07), -0.5, 0.56))

    assert found.message == (
        "dropout straight before BatchNorm, 1 layer: dropouts work against each other in c "
        "(0.61 x 1.75): with all off, as in eval(), variance is about 1.07 of that in training"
    )
    assert found.evidence["highest"] == 1.07


@pytest.mark.parametrize(
    ("layer", "dropouts", "against"),
    [
        (hit("bn", 1.3), TWO, True),  # straight noise adds variance: another must take it away
        (hit("bn", 0.9), TWO, False),
        (hit("bn", 1.3), TWO[:1], False),
        (replace(hit("bn", 1.3), dropouts=(THROUGH,)), TWO, False),
        (shared_out(hit("bn", 0.6), -0.6, 0.09), TWO, False),
        (shared_out(hit("bn", 0.9), -0.6, 0.5), TWO, True),
    ],
)
def test_against_each_other(layer, dropouts, against):
    """Told by shares where they are known, else by what straight noise cannot do."""
    found = told_of(layer, dropouts=dropouts)

    assert ("against each other" in found.message) is against
    assert bool(found.evidence["against_each_other"]) is against
