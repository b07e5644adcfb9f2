import math

import pytest
import torch

from tests.static.files import CHANNELS, healthy
from varshift_cli.errors import NothingToMeasureError
from varshift_cli.static import diff_checkpoints


def diffed(before, after, folder):
    torch.save(before, folder / "a.pt")
    torch.save(after, folder / "b.pt")
    return diff_checkpoints(str(folder / "a.pt"), str(folder / "b.pt"))


def codes(diff):
    return {each.code: each.layers for each in diff.findings}


def test_figures(tmp_path):
    """Ratio, spread and mean shift are those computed by hand."""
    before, after = healthy(), healthy()
    factors = torch.tensor([2.0, 2.0, 2.0, 0.5, 0.5, 0.5])
    after["body.1.bn.running_var"] = before["body.1.bn.running_var"] * factors
    after["body.2.bn.running_mean"] = (
        before["body.2.bn.running_mean"] + 0.5 * before["body.2.bn.running_var"].sqrt()
    )

    first, second, third = diffed(before, after, tmp_path).layers

    assert (first.variance_ratio, first.mean_shift, first.same_statistics) == (1.0, 0.0, True)
    assert second.variance_ratio == pytest.approx(1.0, abs=1e-4)
    assert second.variance_spread == pytest.approx(2.0, rel=1e-4)
    assert third.mean_shift == pytest.approx(0.5, rel=1e-3)
    assert not third.same_statistics


def test_swapping_inverts(tmp_path):
    """Ratios of B to A are the inverse of those of A to B."""
    one, other = healthy(), healthy(seed=3)

    there = diffed(one, other, tmp_path).layers
    back = diffed(other, one, tmp_path).layers

    for a, b in zip(there, back, strict=True):
        assert math.log(a.variance_ratio) == pytest.approx(-math.log(b.variance_ratio))
        assert a.variance_spread == pytest.approx(b.variance_spread)


def test_permuted(tmp_path):
    """VS405: B holds A's values in another order; other values are no permutation."""
    before, after = healthy(), healthy()
    for leaf in ("running_mean", "running_var"):
        after[f"body.0.bn.{leaf}"] = before[f"body.0.bn.{leaf}"].flip(0)
    assert codes(diffed(before, after, tmp_path)) == {"VS405": ("body.0.bn",)}

    after["body.0.bn.running_var"][0] *= 1.01
    assert codes(diffed(before, after, tmp_path)) == {}


def test_only_statistics(tmp_path):
    """Two files that differ in statistics alone are told of as one repaired, in a note."""
    before, after = healthy(), healthy()
    after["body.0.bn.running_var"] = after["body.0.bn.running_var"] * 2

    diff = diffed(before, after, tmp_path)

    assert (diff.same_weights, diff.other_weights) == (3, 0)
    assert "one file was repaired" in diff.notes[0]
    assert diff.findings == ()


def test_frozen(tmp_path):
    """VS209: weights changed and statistics did not."""
    after = healthy()
    after["body.0.conv.weight"] = after["body.0.conv.weight"] + 1

    diff = diffed(healthy(), after, tmp_path)

    assert codes(diff) == {"VS209": ("body.0.bn", "body.1.bn", "body.2.bn")}
    assert (diff.same_weights, diff.other_weights) == (2, 1)


def test_half_frozen(tmp_path):
    """VS211: scale and offset equal while statistics and weights changed."""
    before, after = healthy(), healthy(seed=5)
    for leaf in ("weight", "bias"):
        after[f"body.1.bn.{leaf}"] = before[f"body.1.bn.{leaf}"]

    assert codes(diffed(before, after, tmp_path)) == {"VS211": ("body.1.bn",)}


def test_trained_on(tmp_path):
    """Everything changed: no finding."""
    assert codes(diffed(healthy(), healthy(seed=5), tmp_path)) == {}


def test_prefixes_and_absent_layers(tmp_path):
    """A wrapper's prefix is no difference; layers in one file only are listed."""
    after = {f"module.{name}": value for name, value in healthy(layers=2).items()}

    diff = diffed(healthy(), after, tmp_path)

    assert [each.name for each in diff.layers] == ["body.0.bn", "body.1.bn"]
    assert (diff.only_before, diff.only_after) == (("body.2.bn",), ())


def test_not_finite(tmp_path):
    """A layer with a NaN has no ratio."""
    after = healthy()
    after["body.0.bn.running_var"][0] = math.nan

    (first, *_) = diffed(healthy(), after, tmp_path).layers

    assert (first.variance_ratio, first.mean_shift) == (None, None)


def test_nothing_in_common(tmp_path):
    """Files without a common layer exit 3."""
    other = {"x.running_mean": torch.zeros(CHANNELS), "x.running_var": torch.ones(CHANNELS)}

    with pytest.raises(NothingToMeasureError, match="no BatchNorm layer of the same name"):
        diffed(healthy(), other, tmp_path)
