"""What is said of dropout before BatchNorm."""

from dataclasses import replace

import pytest

from tests import samples
from varshift_cli.diagnosis.noise import inherited, noises
from varshift_cli.diagnosis.observations import Observations, spanned
from varshift_cli.records import BuffersRecord, Case, DropoutLink, FactorIntervals


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
