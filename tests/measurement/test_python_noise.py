"""Noise that is Python rather than an op: seen, named, switched, and bound to samples."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import noisy
from tests.nets import batches_of
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement import Measurement, measure
from varshift_cli.records import Case, SilentProgress

KINDS = {
    "drop_path": noisy.DropPath,
    "stochastic_depth": noisy.StochasticDepth,
    "drop_block": noisy.DropBlock2d,
    "gaussian_dropout": noisy.GaussianDropout,
    "gaussian_noise": noisy.GaussianNoise,
    "uout": noisy.Uout,
    "my_scaled_dropout": noisy.MyScaledDropout,
}


class Residual(nn.Module):
    """conv, noise, sum, BN, conv, BN."""

    def __init__(self, noise: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.noise = noise
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3)
        self.bn2 = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv(x)
        x = branch * 0.5 + self.noise(branch.clone())
        x = self.conv2(torch.relu(self.bn1(x)))
        out: Tensor = self.bn2(x)
        return out


def run(model: nn.Module, x: Tensor, size: int = 16, noise: tuple[type, ...] = ()) -> Measurement:
    return measure(
        model,
        find_batch_norms(model, noise),
        batches_of(x, size),
        seed=0,
        progress=SilentProgress(),
    )


def factors(measured: Measurement) -> list[Tensor]:
    return [layer.clean.pooled().var / layer.train.pooled().var for layer in measured.layers]


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_named_wired_and_on_in_the_train_pass_alone(kind: str) -> None:
    """Kind, p, place and way to BN are told; E and C are what a net without the noise has."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 6, 6)
    model = Residual(KINDS[kind]())
    measured = run(model, x)
    (visit,) = measured.wiring.noises
    p = None if kind in ("gaussian_noise", "uout") else getattr(model.noise, "p", 0.3)
    assert (visit.key.name, visit.kind, visit.p) == ("noise", kind, p)
    assert "test_python_noise.py:" in str(visit.location)
    links = {v.key.name: dict(v.dropouts) for v in measured.wiring.batch_norms}
    assert links == {"bn1": {visit.key: Case.STRAIGHT}, "bn2": {}}
    still = Residual(nn.Identity())
    still.load_state_dict(model.state_dict())
    expected = run(still, x)
    for one, other in zip(measured.layers, expected.layers, strict=True):
        for regime in ("eval", "clean"):
            a, b = getattr(one, regime).pooled(), getattr(other, regime).pooled()
            torch.testing.assert_close(a.var, b.var, rtol=1e-6, atol=0)
    assert float(factors(measured)[0].mean()) < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_masks_belong_to_samples(kind: str) -> None:
    """T is the same at batch size 1, 5 and 64 and in another order."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 6, 6)
    model = Residual(KINDS[kind]())
    whole = run(model, x, 64)
    for other in (run(model, x, 5), run(model, x[torch.randperm(64)], 1)):
        for one, two in zip(whole.layers, other.layers, strict=True):
            a, b = one.train.pooled(), two.train.pooled()
            torch.testing.assert_close(a.var, b.var, rtol=1e-5, atol=0)


def test_stochastic_depth_of_a_batch_drops_whole_batches() -> None:
    """In mode "batch" each batch is kept or dropped as one."""
    torch.manual_seed(0)
    x = torch.randn(400, 5)
    model = nn.Sequential(noisy.StochasticDepth(0.5, "batch"), nn.BatchNorm1d(5))
    measured = run(model, x, 4)
    torch.testing.assert_close(float(factors(measured)[0].mean()), 0.5, rtol=0.25, atol=0)
    (visit,) = measured.wiring.noises
    assert visit.kind == "stochastic_depth"


class Behind(nn.Module):
    """A noise module called twice, p = 0 beside it, and one inside a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.none = noisy.DropPath(0.5), noisy.DropPath(0.0)
        self.bn = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.noise(x) + self.none(x) + self.noise(x * 2))
        return out


def test_a_module_called_twice_and_p_0() -> None:
    """Each call has masks and a name of its own; p = 0 is listed, and reaches nothing."""
    measured = run(Behind(), torch.randn(100, 5))
    calls = [(tuple(visit.key), visit.p) for visit in measured.wiring.noises]
    assert calls == [(("noise", 1), 0.5), (("none", 1), 0.0), (("noise", 2), 0.5)]
    (visit,) = measured.wiring.batch_norms
    assert {tuple(key) for key, _ in visit.dropouts} == {("noise", 1), ("noise", 2)}
    x = torch.randn(4000, 5)
    measured = run(Behind(), x, 500)
    # Var(x m1 + x + 2 x m2) = 16 v + (1 + 4) tau2 E[x^2], tau2 = 1.
    torch.testing.assert_close(
        measured.layers[0].train.pooled().var,
        16 * x.double().var(0) + 5 * x.double().square().mean(0),
        rtol=0.1,
        atol=0,
    )


def test_users_type_is_noise_only_when_registered() -> None:
    """A type of the user's, drawing from Python's generator, is switched once it is named."""
    torch.manual_seed(0)
    x = torch.randn(1200, 5)
    model = nn.Sequential(noisy.Jitter(0.5), nn.BatchNorm1d(5))
    assert run(model, x, 2).wiring.noises == ()
    measured = run(model, x, 2, (noisy.Jitter,))
    (visit,) = measured.wiring.noises
    assert (visit.kind, visit.p) == ("Jitter", None)
    # 1 + s with s = +-0.5: v (1 + 0.25), the mean being near 0.
    assert float(factors(measured)[0].mean()) == pytest.approx(0.8, rel=0.1)
    again = run(model, x, 2, (noisy.Jitter,))
    assert torch.equal(factors(measured)[0], factors(again)[0])


class Block(nn.Module):
    """A registered type that holds BN, torch's dropout and noise under its own flag."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.drop, self.last = nn.BatchNorm1d(5), nn.Dropout(0.5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.bn(x))
        if self.training:
            x = x + torch.randn_like(x)
        out: Tensor = self.last(x)
        return out


@pytest.mark.parametrize("size", [8, 200])
def test_noise_around_batch_norm(size: int) -> None:
    """A registered module may hold BN, at which batches wait; its children keep their flags."""
    torch.manual_seed(0)
    x = torch.randn(200, 5)
    measured = run(Block(), x, size, (Block,))
    assert [visit.kind for visit in measured.wiring.noises] == ["Block", "dropout"]
    # Behind bn the variance is 1, dropout doubles it, the noise adds 1.
    torch.testing.assert_close(
        measured.layers[1].train.pooled().var.mean().item(), 3.0, rtol=0.1, atol=0
    )
    torch.testing.assert_close(
        measured.layers[1].clean.pooled().var.mean().item(), 1.0, rtol=1e-3, atol=0
    )


class Failing(nn.Module):
    """Raises while its noise is on."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.noise = nn.BatchNorm1d(5), Explosive()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.noise(x))
        return out


class Explosive(noisy.DropPath):
    """Raises when it is on."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("boom")
        return x


def test_flags_and_generators_are_put_back_when_noise_raises() -> None:
    """The module is off again, and random, numpy and torch go on where they were."""
    model, x = Failing(), torch.randn(20, 5)
    before = [module.training for module in model.modules()]
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with pytest.raises(Exception, match="boom"):
        run(model, x, 4, (Explosive,))
    assert [module.training for module in model.modules()] == before
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
