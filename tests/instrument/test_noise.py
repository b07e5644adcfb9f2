"""Masks bound to samples: right in distribution, and the same at any batch size."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from varshift_cli.instrument import noise

KINDS = [
    noise.DROPOUT,
    noise.FEATURE_DROPOUT,
    noise.ALPHA_DROPOUT,
    noise.FEATURE_ALPHA_DROPOUT,
]


def keys(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**62), 2**62, (count,), generator=generator)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_mean_and_variance_are_torchs(kind: noise.NoiseKind, p: float) -> None:
    """Mean and variance of the output match torch's own op within four standard errors."""
    torch.manual_seed(0)
    x = torch.randn(400, 50, 6) + 0.5
    ours = noise.apply_noise(kind, x, p, keys(400), 7).double()
    theirs = getattr(torch, kind.name)(x, p, True).double()
    # Channel masks make a (sample, channel) the independent unit.
    units = (ours - theirs).mean(dim=2).flatten()
    assert abs(float(units.mean())) < 4 * float(units.std()) / math.sqrt(units.numel())
    squares = (ours.square() - theirs.square()).mean(dim=2).flatten()
    assert abs(float(squares.mean())) < 4 * float(squares.std()) / math.sqrt(squares.numel())


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.8])
def test_draws_are_bernoulli_and_independent(p: float) -> None:
    """Rate, pairs of positions, of samples, of sites and of calls pass a chi-square test."""
    base = noise.keep_mask((512, 512), p, keys(512), noise.site_key(0, "a", 1)).bool()
    others = {
        "position": base.roll(1, dims=1),
        "sample": base.roll(1, dims=0),
        "site": noise.keep_mask((512, 512), p, keys(512), noise.site_key(0, "b", 1)).bool(),
        "call": noise.keep_mask((512, 512), p, keys(512), noise.site_key(0, "a", 2)).bool(),
        "seed": noise.keep_mask((512, 512), p, keys(512), noise.site_key(1, "a", 1)).bool(),
    }
    kept = int(base.sum())
    assert abs(kept / base.numel() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / base.numel())
    for name, other in others.items():
        table = [
            [int((base & other).sum()), int((base & ~other).sum())],
            [int((~base & other).sum()), int((~base & ~other).sum())],
        ]
        assert stats.chi2_contingency(table).pvalue > 1e-4, name


def test_rows_and_columns_vary_as_binomials() -> None:
    """Counts per sample and per position spread as independent draws do, no more, no less."""
    mask = noise.keep_mask((1024, 1024), 0.5, keys(1024, 3), 99).double()
    for dim in (0, 1):
        spread = float(mask.sum(dim).var()) / 256.0
        assert abs(spread - 1.0) < 4 * math.sqrt(2 / 1023)


@pytest.mark.parametrize("kind", [noise.GAUSSIAN_DROPOUT, noise.UOUT], ids=lambda kind: kind.name)
@pytest.mark.parametrize("p", [0.1, 0.7])
def test_factors_of_other_laws(kind: noise.NoiseKind, p: float) -> None:
    """Gaussian and uniform factors are distributed as they say (Kolmogorov-Smirnov)."""
    factor = noise.apply_noise(kind, torch.ones(400, 100), p, keys(400), 5).double().flatten()
    law = stats.norm(1, p) if kind is noise.GAUSSIAN_DROPOUT else stats.uniform(1 - p, 2 * p)
    assert stats.kstest(factor.numpy(), law.cdf).pvalue > 1e-3
    assert float(factor.var()) == pytest.approx(kind.spread(p), rel=0.02)


@pytest.mark.parametrize(
    "kind", [*KINDS, noise.GAUSSIAN_DROPOUT, noise.UOUT], ids=lambda kind: kind.name
)
def test_batching_and_order_do_not_matter(kind: noise.NoiseKind) -> None:
    """A sample meets the same mask alone, in a batch, and in another order."""
    x, samples = torch.randn(12, 4, 3, 3), keys(12)
    whole = noise.apply_noise(kind, x, 0.5, samples, 5)
    parts = [
        noise.apply_noise(kind, part, 0.5, key, 5)
        for part, key in zip(x.split(5), samples.split(5), strict=True)
    ]
    assert torch.equal(whole, torch.cat(parts))
    order = torch.randperm(12)
    assert torch.equal(whole[order], noise.apply_noise(kind, x[order], 0.5, samples[order], 5))


def test_rows_are_dealt_to_samples() -> None:
    """Frames folded into the batch (N = 3 x samples) keep their sample's masks."""
    x, samples = torch.randn(12, 5), keys(4)
    whole = noise.apply_noise(noise.DROPOUT, x, 0.5, samples, 5)
    second = noise.apply_noise(noise.DROPOUT, x[3:6], 0.5, samples[1:2], 5)
    assert torch.equal(whole[3:6], second)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_certain_cases(kind: noise.NoiseKind) -> None:
    """P = 0 keeps everything, p = 1 drops everything."""
    x = torch.randn(4, 3, 2)
    assert noise.apply_noise(kind, x, 0.0, keys(4), 1) is x
    assert torch.equal(noise.apply_noise(kind, x, 1.0, keys(4), 1), torch.zeros_like(x))
