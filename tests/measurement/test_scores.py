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
from varshift_cli.measurement.figures import Targets, figures, kind_of, misfit, perfect
from varshift_cli.records import Batch

ROWS = torch.arange(6)


@pytest.mark.parametrize(
    ("shape", "targets", "kind"),
    [
        ((6, 3), ROWS % 3, Targets.CLASSES),
        ((6, 3), (ROWS % 3).float(), Targets.CLASSES),
        ((6, 2), ROWS % 2, Targets.CLASSES),
        ((6,), ROWS % 2, Targets.BINARY),
        ((6, 1), (ROWS % 2).float(), Targets.BINARY),
        ((6, 1), (ROWS % 2).bool(), Targets.BINARY),
        ((6, 1), ROWS.float(), Targets.VALUES),
        ((6, 1), ROWS, Targets.VALUES),
        ((6,), ROWS.float()[:, None], Targets.VALUES),
        ((6, 2, 2), torch.arange(24.0).reshape(6, 2, 2), Targets.VALUES),
    ],
)
def test_kinds(shape: tuple[int, ...], targets: Tensor, kind: Targets) -> None:
    """Classes, yes or no, values: by dtype, shape and what they hold; right answers fit too."""
    outputs = torch.randn(shape)
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
    found = figures(Targets.BINARY, outputs[:, None], targets)
    assert float(found["accuracy"].mean()) == float(((logits > 0) == (targets > 0)).double().mean())
    expected = log_loss(targets.numpy(), torch.sigmoid(logits.double()).numpy())
    assert float(found["loss"].mean()) == pytest.approx(expected, abs=1e-6)


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
    middle = (effect.gain.low + effect.gain.high) / 2
    assert middle == pytest.approx(effect.r2.recalibrated - effect.r2.eval, abs=1e-9)
    assert effect.gain.high < 0.0
    assert effect.adapted


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
