"""What outputs score against targets, by hand; what targets are; whether outputs still agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, r2_score
from torch import Tensor

from varshift_cli.measurement import effect_of, labels_of, targets_of
from varshift_cli.measurement.agreement import FARTHER, agreement
from varshift_cli.measurement.figures import Targets, figures, kind_of, misfit, perfect, r2_interval
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.records import Batch

ROWS = torch.arange(6)


@pytest.mark.parametrize(
    ("shape", "targets", "kind"),
    [
        ((6, 3), ROWS % 3, Targets.CLASSES),
        ((6, 3), (ROWS % 3).float(), Targets.CLASSES),
        ((6, 2), ROWS % 2, Targets.CLASSES),
        ((6, 3), (ROWS % 3)[:, None], Targets.CLASSES),
        ((6,), ROWS % 2, Targets.LOGITS),
        ((6, 1), (ROWS % 2).float(), Targets.LOGITS),
        ((6, 1), (ROWS % 2).bool(), Targets.LOGITS),
        ((6, 1), ROWS.float(), Targets.VALUES),
        ((6, 1), ROWS, Targets.VALUES),
        ((6,), ROWS.float()[:, None], Targets.VALUES),
        ((6, 2, 2), torch.arange(24.0).reshape(6, 2, 2), Targets.VALUES),
    ],
)
def test_kinds(shape: tuple[int, ...], targets: Tensor, kind: Targets) -> None:
    """Classes, yes or no, values: by dtype, shape and what they hold; right answers fit too."""
    torch.manual_seed(0)
    outputs = 3 * torch.randn(shape)
    assert kind_of(outputs, targets) is kind
    right = perfect(kind, outputs, targets)
    assert right.shape == outputs.shape
    first = next(iter(figures(kind, right, targets).values()))
    assert float(first.mean()) == 1.0


@pytest.mark.parametrize(
    ("shape", "targets", "words"),
    [
        ((6, 3), ROWS % 3 + 1, "labels run from 1 to 3, but there are 3 outputs"),
        ((6, 3), ROWS.clone().fill_(-100), "labels run from -100 to -100"),
        ((6, 3), torch.eye(3).repeat(2, 1), "0 or 1 in several columns"),
        ((6, 2), torch.tensor([[0.3, 0.7]]).repeat(6, 1), "shares of classes"),
        ((6, 2), torch.arange(12).reshape(6, 2), "whole numbers"),
        ((6,), torch.full((6,), 2.5), "all targets are the same"),
        ((6, 1), torch.full((6,), math.nan), "NaN or infinity"),
        ((6, 4, 4), ROWS % 3, r"outputs have shape (6, 4, 4), targets (6,)"),
    ],
)
def test_what_does_not_fit_is_told(shape: tuple[int, ...], targets: Tensor, words: str) -> None:
    """No figure where the targets leave doubt, and what was found is said."""
    outputs = torch.randn(shape)
    assert kind_of(outputs, targets) is None
    assert words in misfit(outputs, targets)


def test_regression_by_scikit_learn() -> None:
    """R2 and squared error of several outputs, as scikit-learn's variance-weighted R2."""
    torch.manual_seed(0)
    targets = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.2])
    outputs = targets + 0.5 * torch.randn(50, 3)
    found = figures(Targets.VALUES, outputs, targets)
    expected = r2_score(targets.numpy(), outputs.numpy(), multioutput="variance_weighted")
    assert float(found["R2"].mean()) == pytest.approx(expected, abs=1e-6)
    squared = np.square(outputs.double().numpy() - targets.double().numpy()).mean()
    assert float(found["loss"].mean()) == pytest.approx(squared, abs=1e-12)


@pytest.mark.parametrize("as_probability", [False, True])
def test_yes_or_no_by_scikit_learn(as_probability: bool) -> None:
    """Accuracy at one half and cross-entropy, from logits or from probabilities."""
    torch.manual_seed(0)
    targets = torch.rand(80).round()
    logits = 2 * torch.randn(80) + targets
    outputs = torch.sigmoid(logits) if as_probability else logits
    kind = Targets.CHANCES if as_probability else Targets.LOGITS
    assert kind_of(outputs[:, None], targets) is kind
    found = figures(kind, outputs[:, None], targets)
    assert float(found["accuracy"].mean()) == float(((logits > 0) == (targets > 0)).double().mean())
    expected = log_loss(targets.numpy(), torch.sigmoid(logits.double()).numpy())
    assert float(found["loss"].mean()) == pytest.approx(expected, abs=1e-6)


def test_what_is_neither_probability_nor_logit_is_not_scored() -> None:
    """A regression on 0 and 1 strays a little beyond: no threshold fits, and none is guessed."""
    targets = torch.arange(100) % 2
    outputs = 0.1 + 0.8 * targets[:, None].float()
    assert kind_of(outputs, targets) is Targets.CHANCES
    outputs[0] = -0.01
    assert kind_of(outputs, targets) is None
    assert "neither probabilities nor plainly logits" in misfit(outputs, targets)
    chances = 0.1 + 0.8 * targets[:, None].float()
    assert Judge(targets).compare(chances, outputs, "data") == ()


def test_outputs_that_are_not_finite_have_no_figure() -> None:
    """NaN scores would be class 0, and right wherever that is the label."""
    labels = torch.zeros(6, dtype=torch.int64)
    assert kind_of(torch.full((6, 3), math.nan), labels) is None
    assert kind_of(torch.full((6, 1), math.nan), labels) is None
    assert "outputs hold NaN" in misfit(torch.full((6, 3), math.nan), labels)


@pytest.mark.parametrize("odd", [torch.eye(4).to_sparse(), torch.ones(4, dtype=torch.complex64)])
def test_targets_of_odd_kinds_are_none(odd: Tensor) -> None:
    """Sparse and complex targets are for a metric of one's own."""
    assert targets_of([Batch((torch.zeros(4, 1),), {}, odd, 4)]) is None


def test_agreement_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many values are taken a part at a time, to the same figures."""
    torch.manual_seed(0)
    train, was, now = (torch.randn(50, 3, 4) + shift for shift in (0, 0.1, 0.4))
    whole = agreement(train, was, now)
    monkeypatch.setattr("varshift_cli.measurement.agreement._AT_ONCE", 100)
    parts = agreement(train, was, now)
    assert whole is not None
    assert parts is not None
    assert parts.as_is == pytest.approx(whole.as_is, rel=1e-12)
    assert parts.low == pytest.approx(whole.low, rel=1e-9)


def test_targets_of_batches() -> None:
    """All or none; class labels are whole numbers, one a sample."""
    x = torch.zeros(2, 1)
    whole = [Batch((x,), {}, torch.tensor([0.0, 2.0]), 2), Batch((x,), {}, torch.tensor([1, 1]), 2)]
    found = labels_of(whole)
    assert found is not None
    assert found.tolist() == [0, 2, 1, 1]
    assert targets_of([*whole, Batch((x,), {}, None, 2)]) is None
    assert targets_of([*whole, Batch((x,), {}, torch.zeros(2, 3), 2)]) is None
    assert labels_of([Batch((x,), {}, torch.tensor([0.5, 1.0]), 2)]) is None


def test_effect_of_a_regression() -> None:
    """R2 and squared error in each regime; the gain is the difference of R2, with an interval."""
    torch.manual_seed(0)
    targets = torch.randn(400, 1)
    today, clean = targets + 0.3 * torch.randn(400, 1), 1.5 * targets + 0.3 * torch.randn(400, 1)
    train = targets + 0.6 * torch.randn(400, 1)
    effect, reason = effect_of(today, clean, train, targets)
    assert reason is None
    assert effect is not None
    assert effect.accuracy is None
    assert effect.r2 is not None
    assert effect.loss is not None
    assert effect.gain is not None
    assert effect.r2.eval == pytest.approx(r2_score(targets.numpy(), today.numpy()), abs=1e-6)
    assert effect.loss.train == pytest.approx(0.36, abs=0.05)
    assert effect.gain.low < effect.r2.recalibrated - effect.r2.eval < effect.gain.high < 0.0
    assert effect.adapted
    assert effect.r2_interval is not None
    assert effect.r2_interval.low < effect.r2.eval < effect.r2_interval.high


def test_the_interval_of_r2_covers_the_truth() -> None:
    """In 300 repetitions it holds R2 of the whole population about 95 % of the time.

    Of errors with variance 0.16 beside targets of variance 1, R2 is 0.84.
    """
    generator = torch.Generator().manual_seed(3)
    covered, repetitions = 0, 300
    for _ in range(repetitions):
        targets, noise = torch.randn(2, 200, 1, generator=generator)
        found = r2_interval(targets + 0.4 * noise, targets)
        assert found is not None
        covered += found.low <= 0.84 <= found.high
    assert 0.92 <= covered / repetitions <= 0.98


def test_outputs_on_another_scale_are_not_scored() -> None:
    """Targets in other units explain nothing: no figure rather than a wrong one."""
    torch.manual_seed(0)
    targets = 40 + 7 * torch.randn(100, 1)
    outputs = (targets - 40) / 7
    effect, _ = effect_of(outputs, 0.9 * outputs, outputs, targets)
    assert effect is not None
    assert effect.r2 is None
    assert effect.loss is None
    assert effect.gain is None


@pytest.mark.parametrize(("scale", "lost"), [(1.0, False), (1.1, False), (1.6, True)])
def test_agreement_by_hand(scale: float, lost: bool) -> None:
    """The noise of train() adds the same to both distances, so one noisy pass will do."""
    torch.manual_seed(0)
    answer = torch.randn(2000, 2)
    train = answer + 0.4 * torch.randn(2000, 2)
    found = agreement(train, answer, scale * answer)
    assert found is not None
    variance = 1.0 + 0.16
    assert found.as_is == pytest.approx(0.16 / variance, rel=0.1)
    assert found.after == pytest.approx((0.16 + (scale - 1) ** 2) / variance, rel=0.1)
    assert found.is_lost is lost
    assert FARTHER == 1.3


def test_agreement_says_nothing_without_a_common_answer() -> None:
    """Outputs that are all noise in train(), or not finite, or missing: no verdict."""
    torch.manual_seed(0)
    train, answer = torch.randn(500, 2), torch.randn(500, 2)
    found = agreement(train, answer, 3 * answer)
    assert found is not None
    assert found.as_is > 1.0
    assert not found.is_lost
    assert agreement(train, answer, None) is None
    assert agreement(train, answer, torch.full_like(answer, math.nan)) is None
    assert agreement(torch.ones(5, 2), torch.ones(5, 2), torch.ones(5, 2)) is None
