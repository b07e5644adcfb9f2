"""Uout and GaussianDropout: what the papers define, and nothing else."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import varshift_cli
from varshift_cli import UsageError
from varshift_cli.nn import GaussianDropout, Uout

LAYERS = [Uout(0.3), Uout(1.0), GaussianDropout(1.0), GaussianDropout.from_p(0.2)]


def spread(layer: nn.Module) -> float:
    """Variance of the factor, from the definition."""
    return layer.beta**2 / 3 if isinstance(layer, Uout) else layer.sigma**2


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_factor_has_mean_one_and_the_stated_variance(layer: nn.Module) -> None:
    """Factors over 400,000 ones: mean and variance within four standard errors."""
    torch.manual_seed(0)
    factor = layer.train()(torch.ones(400_000, dtype=torch.float64))
    count, var = factor.numel(), spread(layer)
    assert abs(float(factor.mean()) - 1) < 4 * math.sqrt(var / count)
    fourth = float((factor - factor.mean()).pow(4).mean())
    assert abs(float(factor.var()) - var) < 4 * math.sqrt((fourth - var**2) / count)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_eval_is_the_identity(layer: nn.Module) -> None:
    """In eval() the very input comes back, and no random number is drawn."""
    x, state = torch.randn(3, 4), torch.get_rng_state()
    assert layer.eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_variance_before_batchnorm_is_the_papers(layer: nn.Module) -> None:
    """Var_test / Var_train = v / (v + s (v + c^2)); for Uout and c = 0, 3 / (3 + beta^2)."""
    torch.manual_seed(1)
    x = torch.randn(400_000, dtype=torch.float64)
    for c in (0.0, 0.7):
        ratio = float((x + c).var() / layer.train()(x + c).var())
        assert ratio == pytest.approx(1 / (1 + spread(layer) * (1 + c * c)), rel=0.02)
        if isinstance(layer, Uout) and c == 0.0:
            assert ratio == pytest.approx(3 / (3 + layer.beta**2), rel=0.02)


def test_uout_is_bounded_by_beta() -> None:
    """No factor leaves (1 - beta, 1 + beta), and both ends are approached."""
    factor = Uout(0.3).train()(torch.ones(10_000))
    assert 0.7 <= float(factor.min()) < 0.701
    assert 1.299 < float(factor.max()) <= 1.3


def test_equal_strength_as_dropout() -> None:
    """sigma^2 = p / (1 - p)."""
    assert GaussianDropout.from_p(0.5).sigma == 1.0
    assert GaussianDropout.from_p(0.2).sigma == pytest.approx(0.5)
    assert GaussianDropout.from_p(0.0).sigma == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uout(-0.1),
        lambda: Uout(1.1),
        lambda: Uout(math.nan),
        lambda: GaussianDropout(-1.0),
        lambda: GaussianDropout(math.inf),
        lambda: GaussianDropout.from_p(1.0),
    ],
)
def test_senseless_strengths_are_refused(make) -> None:
    """Outside the definition there is an error that names the bounds."""
    with pytest.raises(UsageError, match=r"must be"):
        make()


def test_they_add_nothing_to_a_state_dict_and_copy_and_train() -> None:
    """No key; gradients flow; a deep copy and the printed form keep the strength."""
    net = nn.Sequential(nn.Linear(3, 3), Uout(0.2), GaussianDropout(0.5))
    assert set(net.state_dict()) == {"0.weight", "0.bias"}
    net.train()(torch.randn(5, 3)).sum().backward()
    assert net[0].weight.grad is not None
    assert repr(copy.deepcopy(net)[1]) == "Uout(beta=0.2)"
    assert repr(net[2]) == "GaussianDropout(sigma=0.5)"


def test_the_face_offers_them() -> None:
    """``from varshift_cli import Uout`` and ``varshift_cli.nn.Uout`` are the same."""
    assert varshift_cli.Uout is Uout
    assert varshift_cli.GaussianDropout is GaussianDropout
