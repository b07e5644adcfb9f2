"""Every rule on a file alone, once where it must speak and once where it must not."""

import math

import pytest
import torch

from tests.static.files import CHANNELS, changed, healthy, linted, told

ONES, ZEROS = [1.0] * CHANNELS, [0.0] * CHANNELS


def test_healthy(tmp_path):
    """Buffers with nothing wrong give no finding at all."""
    assert linted(healthy(), tmp_path).findings == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_broken(tmp_path, value):
    """VS202: NaN, infinity and a negative variance are errors, with the channel named."""
    state = changed(1, "running_var", [value, *ONES[1:]])

    report = linted(state, tmp_path)

    assert told(report)["VS202"] == ("error", ("body.1.bn",))
    assert report.findings[0].evidence["channels"] == {"body.1.bn": [0]}


def test_zero_variance_is_not_broken(tmp_path):
    """A variance of exactly 0 is dead, not broken."""
    found = told(linted(changed(1, "running_var", [0.0, *ONES[1:]]), tmp_path))

    assert set(found) == {"VS403"}


def test_missing(tmp_path):
    """VS203: a layer with a mean and no variance."""
    state = healthy()
    del state["body.2.bn.running_var"]

    assert told(linted(state, tmp_path)) == {"VS203": ("error", ("body.2.bn",))}


def test_never_updated(tmp_path):
    """VS201: exactly 0 and 1 in every channel; the layers that moved are counted as evidence."""
    state = healthy()
    state["body.0.bn.running_mean"], state["body.0.bn.running_var"] = (
        torch.tensor(ZEROS),
        torch.tensor(ONES),
    )
    state["body.0.bn.num_batches_tracked"] = torch.tensor(0)

    report = linted(state, tmp_path)

    assert told(report) == {"VS201": ("error", ("body.0.bn",))}
    assert report.findings[0].evidence["updated_layers"] == 2


def test_one_moved_channel_was_updated(tmp_path):
    """A single channel away from 0 and 1 shows that the buffers were updated."""
    state = changed(0, "running_mean", [*ZEROS[1:], 0.1])
    state["body.0.bn.running_var"] = torch.ones(CHANNELS)

    assert "VS201" not in told(linted(state, tmp_path))


@pytest.mark.parametrize(("updates", "level"), [(5, "warning"), (30, "note")])
def test_too_few(tmp_path, updates, level):
    """VS204: after k updates at momentum 0.1, 0.9^k of the initial values is left."""
    report = linted(healthy(updates=updates) | _floor(updates), tmp_path)

    assert told(report)["VS204"][0] == level
    assert report.findings[0].evidence["initial_share"] == pytest.approx(0.9**updates)


def _floor(updates):
    """Variances that hold the share of the initial 1 that k updates leave."""
    share = 0.9**updates
    state = healthy()
    return {
        name: share + (1 - share) * value
        for name, value in state.items()
        if name.endswith("running_var")
    }


def test_enough_updates(tmp_path):
    """44 updates are enough; and few updates with variances too small for 0.1 are a note."""
    assert "VS204" not in told(linted(healthy(updates=44), tmp_path))

    small = changed(0, "running_var", [0.01] * CHANNELS, layers=1, updates=5)
    assert told(linted(small, tmp_path))["VS204"][0] == "note"


def test_no_count(tmp_path):
    """VS206: no layer was counted, yet the values have moved; a missing counter says nothing."""
    assert told(linted(healthy(updates=0), tmp_path)).keys() == {"VS206"}

    state = {
        name: value for name, value in healthy().items() if not name.endswith("num_batches_tracked")
    }
    report = linted(state, tmp_path)
    assert report.findings == ()
    assert [layer.updates for layer in report.layers] == [None] * 3


def test_standing_still(tmp_path):
    """VS209: one counter behind the others, 0 included."""
    for behind in (0, 120):
        state = changed(1, "num_batches_tracked", behind)
        assert told(linted(state, tmp_path)) == {"VS209": ("note", ("body.1.bn",))}


def test_multiples(tmp_path):
    """VS401: a counter that is a whole multiple; one that merely runs ahead says nothing."""
    report = linted(changed(2, "num_batches_tracked", 1500), tmp_path)
    assert told(report) == {"VS401": ("note", ("body.2.bn",))}
    assert report.findings[0].evidence["calls"] == {"body.2.bn": 3}

    assert told(linted(changed(2, "num_batches_tracked", 1501), tmp_path)) == {}


def test_half_and_half_counters(tmp_path):
    """With two equally common counters the smaller is the usual one if it divides the larger."""
    state = changed(1, "num_batches_tracked", 1000, layers=2)
    assert told(linted(state, tmp_path)) == {"VS401": ("note", ("body.1.bn",))}

    state = changed(1, "num_batches_tracked", 700, layers=2)
    assert told(linted(state, tmp_path)) == {"VS209": ("note", ("body.0.bn",))}


def test_dead(tmp_path):
    """VS403: variances below a hundredth of eps are counted, denormal ones too."""
    report = linted(changed(0, "running_var", [5.6e-45, 1e-8, *ONES[2:]]), tmp_path)

    assert told(report) == {"VS403": ("note", ("body.0.bn",))}
    assert report.findings[0].evidence == {"dead": {"body.0.bn": 2}, "denormal": 1}
    assert report.layers[0].dead_channels == 2


def test_near_eps(tmp_path):
    """VS404: more than a tenth of the channels near eps; one above 1e-4 is not near."""
    assert told(linted(changed(0, "running_var", [5e-5, *ONES[1:]]), tmp_path)) == {
        "VS404": ("note", ("body.0.bn",))
    }
    assert told(linted(changed(0, "running_var", [2e-4, *ONES[1:]]), tmp_path)) == {}


def test_outliers(tmp_path):
    """VS212: a channel a million times its layer's median; a thousand times is left alone."""
    assert told(linted(changed(0, "running_var", [1e9, *ONES[1:]]), tmp_path)) == {
        "VS212": ("warning", ("body.0.bn",))
    }
    assert told(linted(changed(0, "running_var", [1e3, *ONES[1:]]), tmp_path)) == {}


def test_half_frozen(tmp_path):
    """VS211: scale 1 and offset 0 in every channel; one other channel clears it."""
    state = changed(0, "weight", ONES)
    state["body.0.bn.bias"] = torch.zeros(CHANNELS)
    assert told(linted(state, tmp_path)) == {"VS211": ("note", ("body.0.bn",))}

    state["body.0.bn.weight"][2] = 1.01
    assert told(linted(state, tmp_path)) == {}


def test_silent(tmp_path):
    """VS406: scale 0 in every channel; one other channel clears it."""
    assert told(linted(changed(0, "weight", ZEROS), tmp_path)) == {
        "VS406": ("note", ("body.0.bn",))
    }
    assert told(linted(changed(0, "weight", [0.1, *ZEROS[1:]]), tmp_path)) == {}


def test_twice(tmp_path):
    """VS407: two layers with the same statistics to the last bit; nearly the same is not."""
    state = healthy()
    for leaf in ("running_mean", "running_var"):
        state[f"body.2.bn.{leaf}"] = state[f"body.0.bn.{leaf}"].clone()
    report = linted(state, tmp_path)
    assert told(report) == {"VS407": ("note", ("body.0.bn", "body.2.bn"))}
    assert report.findings[0].evidence["groups"] == [["body.0.bn", "body.2.bn"]]

    state["body.2.bn.running_var"] += 1e-5
    assert told(linted(state, tmp_path)) == {}


def test_permuted(tmp_path):
    """VS405: the same statistics in another order of channels."""
    state = healthy()
    order = torch.arange(CHANNELS).flip(0)
    for leaf in ("running_mean", "running_var"):
        state[f"body.2.bn.{leaf}"] = state[f"body.0.bn.{leaf}"][order]
    assert told(linted(state, tmp_path)) == {"VS405": ("warning", ("body.0.bn", "body.2.bn"))}

    state["body.2.bn.running_var"][0] += 1e-5
    assert told(linted(state, tmp_path)) == {}


class TestAveraged:
    """VS207: averaged weights beside raw ones, in one flat file and in two dicts."""

    def raw_and_average(self, *, foreign):
        raw, average = healthy(), healthy(seed=1)
        if foreign:
            average |= {name: value for name, value in raw.items() if ".running_" in name}
        return raw, average

    def test_two_dicts(self, tmp_path):
        """The EMA dict of a torch file that carries the raw buffers is suspect."""
        raw, average = self.raw_and_average(foreign=True)
        state = {"model": raw, "model_ema": average}

        report = linted(state, tmp_path, name="model.pt")

        level, layers = told(report)["VS207"]
        assert (level, len(layers)) == ("warning", 3)
        assert layers[0] == "model_ema.body.0.bn"
        assert len(report.layers) == 6

    def test_one_flat_file(self, tmp_path):
        """So are averaged weights that only a prefix tells from the raw ones."""
        raw, average = self.raw_and_average(foreign=True)
        state = {f"student.{name}": value for name, value in raw.items()}
        state |= {f"teacher.module.{name}": value for name, value in average.items()}

        assert "VS207" in told(linted(state, tmp_path))

    def test_own_buffers(self, tmp_path):
        """Buffers of their own are no finding."""
        raw, average = self.raw_and_average(foreign=False)

        assert told(linted({"model": raw, "ema": average}, tmp_path, name="model.pt")) == {}

    def test_never_given_any(self, tmp_path):
        """A teacher whose buffers are still those of a new layer is told of as such."""
        raw, average = self.raw_and_average(foreign=False)
        for name in average:
            if name.endswith("running_mean"):
                average[name] = torch.zeros(CHANNELS)
            if name.endswith("running_var"):
                average[name] = torch.ones(CHANNELS)
        report = linted({"model": raw, "ema": average}, tmp_path, name="model.pt")

        assert told(report)["VS201"][0] == "error"
        assert "averaged weights came without buffers" in report.findings[0].message

    def test_only_averaged(self, tmp_path):
        """A file of averaged weights alone gets a note: the file cannot tell."""
        state = {f"module.{name}": value for name, value in healthy().items()}
        state["n_averaged"] = torch.tensor(12)

        assert told(linted(state, tmp_path))["VS207"][0] == "note"
