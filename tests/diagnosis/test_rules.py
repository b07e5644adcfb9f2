"""Every rule on stored statistics, once where it must speak and once where it must not."""

import math

import pytest
import torch

from tests.diagnosis.layers import CHANNELS, EPS, asked, layer, moments, statistics, values
from varshift_cli.diagnosis.batching import small_batches, unsorted
from varshift_cli.diagnosis.inputs import not_guilty, other_inputs, unlike_training
from varshift_cli.diagnosis.observations import Observations, TrainingData
from varshift_cli.diagnosis.stored import (
    averaged,
    changed_weights,
    frozen,
    odd_buffers,
    one_batch,
    stale,
    too_few,
)
from varshift_cli.diagnosis.structure import (
    odd_structure,
    other_eps,
    outliers,
    permuted,
    shared,
)
from varshift_cli.instrument.facts import ModelFacts, WeightFacts
from varshift_cli.measurement.ordering import Order
from varshift_cli.measurement.unmixed import Unmixed
from varshift_cli.records import (
    BuffersRecord,
    Effect,
    Factors,
    FindingLevel,
    Level,
    RegimeScores,
    Skipped,
)

RULES = (
    unlike_training, shared, permuted, outliers, frozen, averaged, changed_weights, one_batch,
    too_few, other_eps, unsorted, other_inputs, small_batches, stale,
)  # fmt: skip
MEAN, VAR = statistics(values())
SCATTER = torch.exp(torch.linspace(-0.8, 0.8, CHANNELS))
"""Factors of mean 1 over channels, as logs are averaged."""


def doubled(name="bn", **more):
    """A layer whose stored variance is half of what it meets, for no reason the figures show."""
    factors = torch.linspace(0.3, 0.7, CHANNELS)
    return layer(name, mean=MEAN + 0.3 * VAR.sqrt(), var=VAR * factors, **more)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sound_buffers_say_nothing(rule):
    """With the statistics of its own data no rule speaks of a layer."""
    assert rule(asked(layer(), layer("b", upstream=("bn",)))) is None


def test_stale():
    """VS210: anything that no other rule explains, with what else it could be."""
    found = stale(asked(doubled()))

    assert (found.code, found.layers, found.level) == ("VS210", ("bn",), FindingLevel.ERROR)
    assert found.evidence["stale"] == pytest.approx(
        math.exp(torch.log(1 / torch.linspace(0.3, 0.7, CHANNELS)).mean()), rel=1e-3
    )
    assert len(found.rivals) == 4


def off_mean(name, by, **more):
    """A layer of which the running mean is off by so many standard deviations, up and down."""
    signs = torch.tensor([1.0, -1.0]).repeat(CHANNELS // 2)
    return layer(name, mean=MEAN + by * signs * VAR.sqrt(), **more)


@pytest.mark.parametrize(("by", "level"), [(0.3, FindingLevel.NOTE), (0.6, FindingLevel.WARNING)])
def test_stale_mean_alone(by, level):
    """VS210: where only a running mean is off, its figure is given, and the layer's name."""
    found = stale(asked(off_mean("bn1", by, level=Level.FINE)))

    assert found.message == (
        "the running statistics of 1 layer do not describe this data: the running mean of bn1 is "
        f"off by {by:.2f} standard deviations on average, its variance is not"
    )
    assert found.evidence["means"] == {"bn1": pytest.approx(by, rel=1e-3)}
    assert found.level is level


def test_stale_scatter_alone():
    """VS210: variances that are off up and down by channel are no ratio of about 1."""
    scattered = [
        layer(name, var=VAR * SCATTER**power) for name, power in (("bn1", 0.5), ("bn2", 1.0))
    ]

    found = stale(asked(*scattered))

    factor = math.exp(torch.log(SCATTER).abs().mean())
    assert found.message.endswith(
        f"the variances of bn2 (worst of 2 layers) are off by a factor of {factor:.2f} on average, "
        "channels up and down"
    )


def test_stale_in_several_ways():
    """VS210: each figure says how many layers it is about."""
    found = stale(asked(doubled(), layer("b", var=VAR / 2), off_mean("c", 0.5)))

    assert found.layers == ("bn", "b", "c")
    assert "gives about 2.03 of the variance of 2 layers; the running mean of c is" in found.message


def test_shared():
    """VS401: one layer, two calls that differ; two calls that agree are no fault."""
    far = values() * 2.0
    mean, var = (MEAN + statistics(far)[0]) / 2, (VAR + statistics(far)[1]) / 2
    calls = (
        layer("bn", mean=mean, var=var),
        layer("bn", mean=mean, var=var, x=far, call=2),
    )

    found = shared(asked(*calls))

    assert (found.code, found.layers) == ("VS401", ("bn", "bn#2"))
    assert shared(asked(layer("bn"), layer("bn", call=2))) is None
    assert shared(asked(doubled())) is None


def test_permuted():
    """VS405: the same values in another order; other values are not."""
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(1))

    found = permuted(asked(layer(mean=MEAN[order], var=VAR[order])))

    assert found.code == "VS405"
    assert "another order" in found.message
    assert permuted(asked(doubled())) is None


@pytest.mark.parametrize("seed", range(20))
def test_permuted_by_chance(seed):
    """Factors that fell on channels at random: sorting helps there, as with any values."""
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))

    layers = asked(layer(var=VAR * SCATTER[order].pow(1.5)))

    assert len(layers.off) == 1
    assert permuted(layers) is None


def test_permuted_within_noise():
    """Channels alike but for noise, in any order; off as a whole, which no order explains."""
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, 32, 1024, 1, generator=generator)
    mean, var = statistics(other)

    noisy = layer(x=x, mean=mean, var=var * 1.06)

    assert noisy.off_in == {"size"}
    assert permuted(asked(noisy)) is None


def test_swapped():
    """VS405: mean and variance in each other's place."""
    x = values() + 3.0
    mean, var = statistics(x)

    found = permuted(asked(layer(mean=var, var=mean.abs(), x=x)))

    assert "in each other's place" in found.message


def test_outliers():
    """VS212: one channel far above, the others agree; if all are off it is another cause."""
    var = VAR.clone()
    var[4] *= 50

    found = outliers(asked(layer(var=var)))

    assert (found.code, found.evidence["channels"]) == ("VS212", {"bn": [4]})
    assert outliers(asked(layer(var=VAR * 50))) is None


def test_frozen():
    """VS209: by its flag or by a counter that stood still; else not."""
    by_flag = frozen(asked(doubled(), frozen=frozenset({"bn"})))
    by_count = frozen(asked(doubled(updates=100), layer("b", upstream=("bn",))))

    assert (by_flag.code, by_flag.layers) == ("VS209", ("bn",))
    assert (by_count.code, by_count.layers) == ("VS209", ("bn",))
    assert frozen(asked(doubled(), layer("b", upstream=("bn",)))) is None


def test_averaged():
    """VS207: weights known to be an average whose buffers do not fit."""
    assert averaged(asked(doubled(), averaged="by its key")).code == "VS207"
    assert averaged(asked(layer(), averaged="by its key")) is None
    assert averaged(asked(doubled())) is None


@pytest.mark.parametrize(
    ("zeros", "distinct", "speaks"),
    [(0.5, 10_000, True), (0.0, 16, True), (0.0, 10_000, False), (0.05, 10_000, False)],
)
def test_changed_weights(zeros, distinct, speaks):
    """VS208: a good part of a weight is 0, or it has few values."""
    facts = ModelFacts(weights=(WeightFacts("conv", zeros, distinct, 10_000),))

    found = changed_weights(asked(doubled(), facts=facts))

    assert (found is not None) == speaks
    assert found is None or found.code == "VS208"
    assert changed_weights(asked(layer(), facts=facts)) is None


def test_one_batch():
    """VS205: momentum near 1, with the number of samples that the scatter looks like."""
    generator = torch.Generator().manual_seed(2)
    batch = values()[torch.randint(512, (16,), generator=generator)]
    mean, var = statistics(batch)

    found = one_batch(asked(layer(mean=mean, var=var, alpha=0.99)))

    assert found.code == "VS205"
    assert 4 < found.evidence["like_samples"] < 64
    assert one_batch(asked(layer(mean=mean, var=var, alpha=0.1))) is None


@pytest.mark.parametrize("updates", [3, 10, 20])
def test_too_few(updates):
    """VS204: k updates at momentum 0.1, exactly as far along as PyTorch's rule takes them."""
    share = 1.0 - 0.9**updates
    young = layer(mean=share * MEAN, var=(1 - share) + share * VAR, updates=updates)

    found = too_few(asked(young))

    assert found.code == "VS204"
    assert found.evidence["share"] == pytest.approx(share)
    assert found.evidence["explained"] > 0.9
    assert found.rivals == ()


def test_too_few_without_a_counter():
    """VS204: without a counter the share is fitted, and rivals are named."""
    found = too_few(asked(layer(mean=0.6 * MEAN, var=0.4 + 0.6 * VAR, updates=None)))

    assert found.evidence["share"] == pytest.approx(0.6, abs=0.02)
    assert found.rivals


def test_not_too_few():
    """Another distance is not taken for too few updates, few as they may be."""
    assert too_few(asked(doubled(updates=5))) is None
    assert too_few(asked(doubled())) is None


class Trials:
    """Answers as a model would that behaves as it is told."""

    def __init__(self, *, kinds=None, eps=None):
        self.kinds, self.eps, self.asked = kinds, eps, []

    def unmixed(self):
        return self.kinds

    def with_eps(self, eps):
        self.asked.append(eps)
        return self.eps[eps]


def test_other_eps():
    """VS404: the layers behind small variances fit under another eps."""
    first = layer(x=0.02 * values())
    behind = layer("b", var=VAR / 1.4, upstream=("bn",))
    fits = moments(values() / math.sqrt(1.4))
    now = moments(values())
    same = moments(0.02 * values())
    answers = {
        eps: {first.layer.key: same, behind.layer.key: fits if eps == 1e-3 else now}
        for eps in (1e-3, 1e-4, 1e-6)
    }

    found = other_eps(asked(first, behind, trials=Trials(eps=answers)))

    assert (found.code, found.layers, found.evidence["fits"]) == ("VS404", ("b",), 1e-3)
    nothing = {eps: {first.layer.key: same, behind.layer.key: now} for eps in answers}
    assert other_eps(asked(first, behind, trials=Trials(eps=nothing))) is None


def test_large_variances_ask_for_no_eps():
    """No trial is run where eps cannot matter."""
    trials = Trials(eps={})

    assert other_eps(asked(layer(), doubled("b", upstream=("bn",)), trials=trials)) is None
    assert trials.asked == []


KINDS = 4


def grouped():
    """Data of four kinds far apart, and the index of each sample's kind."""
    x = values()
    index = torch.arange(len(x)) % KINDS
    far = torch.randn(KINDS, CHANNELS, 1, generator=torch.Generator().manual_seed(5))
    return x + 2.5 * far[index], index


def within(x, index):
    """Mean and variance within each kind, (KINDS, C)."""
    pairs = [statistics(x[index == kind]) for kind in range(KINDS)]
    return torch.stack([mean for mean, _ in pairs]), torch.stack([var for _, var in pairs])


def unmixed(each, mean, var, *, by_class=True):
    """What training on batches of one kind each gathers at this layer."""
    return Unmixed(by_class, {each.layer.key: mean}, {each.layer.key: var})


def in_turn(kept, batches=5, alpha=0.1):
    """PyTorch's running average over so many batches of each kind, one kind after the other."""
    running = torch.zeros_like(kept[0])
    for _ in range(20):
        for kind in range(KINDS):
            for _ in range(batches):
                running = (1 - alpha) * running + alpha * kept[kind]
    return running


@pytest.mark.parametrize("by_class", [True, False])
def test_unsorted(by_class):
    """VS302: the running average over kinds that come one after the other, the last ones most."""
    x, index = grouped()
    mean, var = within(x, index)
    hit = layer(mean=in_turn(mean), var=in_turn(var), x=x)

    found = unsorted(asked(hit, trials=Trials(kinds=unmixed(hit, mean, var, by_class=by_class))))

    assert (found.code, found.layers) == ("VS302", ("bn",))
    assert found.evidence["explained"] > 0.9
    assert found.evidence["weight_of_the_kind_before"] == pytest.approx(0.9**5, abs=0.05)
    assert ("class after class" in found.message) is by_class
    assert any("loader of training" in rival for rival in found.rivals) is not by_class


def test_unsorted_in_no_order():
    """VS302: R is the variance within kinds, and the mean leans to one of them."""
    x, index = grouped()
    mean, var = within(x, index)
    hit = layer(mean=mean[1] + 0.2 * var[1].sqrt(), var=var.mean(0), x=x)

    found = unsorted(asked(hit, trials=Trials(kinds=unmixed(hit, mean, var))))

    assert found.code == "VS302"
    assert not found.evidence["in_order"]
    assert any("mixup" in rival for rival in found.rivals)


def test_small_batches_are_no_rival_once_measured():
    """With --train-batch-size the size of the batches is no longer open."""
    x, index = grouped()
    mean, var = within(x, index)
    stored = {"mean": in_turn(mean), "var": in_turn(var), "x": x}
    measured = layer(**stored, factors=Factors(1.0, 1.0, 1.0, 1.0))
    unknown = layer(**stored)

    rivals = [
        unsorted(asked(each, trials=Trials(kinds=unmixed(each, mean, var)))).rivals
        for each in (measured, unknown)
    ]

    assert [any("batch-size" in rival for rival in each) for each in rivals] == [False, True]


def test_not_unsorted():
    """Another lack of variance is not taken for it; nor is anything where kinds are unknown."""
    x, index = grouped()
    mean, var = statistics(x)
    half = layer(mean=mean + 0.3 * var.sqrt(), var=var / 4.0, x=x)

    assert unsorted(asked(half, trials=Trials(kinds=unmixed(half, *within(x, index))))) is None
    assert unsorted(asked(half, trials=Trials(kinds=None))) is None


def test_stale_names_what_order_may_do():
    """What cannot be told without labels, or from batches in an order, is named as a rival."""
    low = layer(mean=MEAN, var=VAR / 4.0)
    told = [
        stale(asked(low, **seen)).rivals[3:]
        for seen in ({}, {"has_classes": True}, {"order": Order(by_class=True, ratio=None)})
    ]

    assert [len(each) for each in told] == [1, 0, 1]
    assert "(VS302): class labels in --data decide" in told[0][0]
    assert "shuffle --data" in told[2][0]


def at_input(scale=1.0, offset=0.0):
    """A first layer whose input was scaled and moved, and one behind that does not notice."""
    x = scale * values() + offset
    return layer(mean=MEAN, var=VAR, x=x), layer("b", upstream=("bn",))


def test_other_data():
    """VS501: scale and mean off at the input, nothing behind."""
    found = other_inputs(asked(*at_input(scale=3.0, offset=2.0)))

    assert (found.code, found.layers) == ("VS501", ("bn",))
    assert found.rivals


WIDER = 1.5 * SCATTER.sqrt()[:, None]


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ({"scale": 3.0, "offset": 2.0}, "in mean and variance;"),
        ({"offset": 2.0}, "in mean;"),
        ({"scale": WIDER, "offset": MEAN[:, None] * (1 - WIDER)}, "in variance;"),
    ],
    ids=["both", "mean alone", "variance alone"],
)
def test_other_data_say_in_what(moved, words):
    """The message names what is off, and not the other."""
    found = other_inputs(asked(*at_input(**moved)))

    assert found.code == "VS501"
    assert words in found.message


def training_data(*layers):
    """What the same layers met on the training data."""
    return TrainingData({each.layer.key: each.layer for each in layers}, len(values()))


def test_other_data_decided():
    """Where the buffers fit the training data and not these, VS501 is certain: no rivals."""
    here, behind = at_input(offset=2.0)
    question = asked(here, behind, train_data=training_data(layer(), behind))

    found = unlike_training(question)

    assert (found.code, found.layers, found.rivals) == ("VS501", ("bn",), ())
    assert found.evidence["stale_on_train_data"] == {"bn": pytest.approx(1.0, abs=1e-6)}


@pytest.mark.parametrize(
    "stored",
    [{"mean": MEAN + 0.5 * VAR.sqrt(), "var": VAR}, {"mean": MEAN, "var": VAR * SCATTER}],
    ids=["mean alone", "variances about 1"],
)
def test_same_data_withdraw_it(stored):
    """Buffers that fit neither set are to blame, though T/R is 1 in the mean over channels."""
    here = layer(x=values(1), **stored), layer("b", upstream=("bn",))
    train_data = training_data(layer(x=values(2), **stored), here[1])

    assert other_inputs(asked(*here)).code == "VS501"
    assert other_inputs(asked(*here, train_data=train_data)) is None
    assert unlike_training(asked(*here, train_data=train_data)) is None
    found = stale(asked(*here, train_data=train_data))
    assert "nor the training data" in found.message
    assert not any("other data" in rival for rival in found.rivals)


def test_stale_buffers_and_other_data():
    """Off a little on the training data and far on these: it is the data in the main."""
    stored = {"mean": MEAN + 0.15 * VAR.sqrt(), "var": VAR}
    here = layer(x=values() + 3.0, **stored)

    found = unlike_training(asked(here, train_data=training_data(layer(**stored))))

    assert found.code == "VS501"


def test_augmentation_decided():
    """VS502 is told by its pattern as well where the training data decide."""
    wider = MEAN.view(1, -1, 1) + math.sqrt(1.4) * (values() - MEAN.float().view(1, -1, 1))
    here = layer(mean=MEAN, var=VAR, x=wider.float())

    found = unlike_training(asked(here, train_data=training_data(layer())))

    assert found.code == "VS502"
    assert not any("--train-data" in rival for rival in found.rivals)


def test_not_measured_on_training_data():
    """A layer that the training data never reached is left to the other rules."""
    assert unlike_training(asked(*at_input(offset=2.0), train_data=TrainingData({}, 0))) is None


def test_augmentation():
    """VS502: the same means, and a third of the variance more in all channels alike."""
    x = values()
    wider = MEAN.view(1, -1, 1) + math.sqrt(1.4) * (x - MEAN.float().view(1, -1, 1))
    first = layer(mean=MEAN, var=VAR, x=wider.float())

    found = other_inputs(asked(first, layer("b", upstream=("bn",))))

    assert found.code == "VS502"
    assert "mixup" in found.message


def test_all_layers_off_is_not_the_input():
    """Where the layers behind are off as much, the input is not to blame."""
    assert other_inputs(asked(doubled(), doubled("b", upstream=("bn",)))) is None


def test_small_batches():
    """VS301: R is the mean variance inside batches of four, drawn here one by one."""
    layers = []
    for index, between in enumerate((0.1, 0.4, 0.8)):
        generator = torch.Generator().manual_seed(index)
        own = torch.randn(512, CHANNELS, 1, generator=generator)
        noise = torch.randn(512, CHANNELS, 6, generator=generator)
        x = math.sqrt(between) * own + math.sqrt(1.0 - between) * noise
        var = torch.stack([statistics(batch)[1] for batch in x.split(4)]).mean(0)
        layers.append(layer(f"bn{index}", mean=statistics(x)[0], var=var, x=x, upstream=("bn",)))

    found = small_batches(asked(*layers))

    assert found.code == "VS301"
    assert found.evidence["batch_size"] == 4
    assert found.evidence["explained"] > 0.8


def test_not_small_batches():
    """A lack of variance where samples do not differ is not that of small batches."""
    assert small_batches(asked(doubled())) is None
    x = torch.randn(512, CHANNELS, 6, generator=torch.Generator().manual_seed(1))
    mean, var = statistics(x)
    assert small_batches(asked(layer(mean=mean, var=var / 2, x=x, upstream=("bn",)))) is None


def test_notes_on_buffers():
    """VS206 and VS211: counters at 0 whose values moved, and scales that never did."""
    codes = [each.code for each in odd_buffers(asked(layer()).seen, [layer(updates=0)])]
    assert codes == ["VS206"]

    facts = ModelFacts(untrained_affine=("bn",))
    (found,) = odd_buffers(asked(layer(), facts=facts).seen, [layer()])
    assert (found.code, found.level) == ("VS211", FindingLevel.NOTE)

    assert odd_buffers(asked(layer()).seen, [layer()]) == []


def test_notes_on_structure():
    """VS402 and VS403: layers without statistics, and dead channels, as notes."""
    quiet = layer()
    (found,) = odd_structure(asked(quiet, skipped=[Skipped("x", "none")]).seen)
    assert (found.code, found.layers, found.level) == ("VS402", ("x",), FindingLevel.NOTE)

    (found,) = odd_structure(asked(layer(dead_channels=3)).seen)
    assert (found.code, found.level) == ("VS403", FindingLevel.NOTE)

    assert odd_structure(asked(quiet).seen) == []


@pytest.mark.parametrize(
    ("accuracy", "level", "speaks"),
    [(0.7, Level.FINE, True), (0.99, Level.FINE, False), (0.7, Level.MILD, False)],
)
def test_not_guilty(accuracy, level, speaks):
    """VS503: mistakes are made, and every layer holds."""
    scores = RegimeScores(accuracy, accuracy, accuracy)
    effect = Effect(None, None, None, scores, None)
    record = layer(level=level, shift=1.01).record

    found = not_guilty(Observations([record], (), BuffersRecord(), (), effect=effect))

    assert [each.code for each in found] == (["VS503"] if speaks else [])


def test_eps_of_the_helpers():
    """The layers of these tests run at the usual eps."""
    assert layer().eps == EPS
