"""Intervals: quantiles against scipy, the bias correction, and coverage."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from varshift_cli.statistics import GroupMoments, Resampling, shift_estimate
from varshift_cli.statistics.intervals import LEFT_ABOVE, LEFT_BELOW, t975


@pytest.mark.parametrize("degrees", [*range(1, 40), 60, 1000, 10**6])
def test_t_quantiles(degrees: int) -> None:
    """The table agrees with scipy to its printed digits, and so does what follows it."""
    assert t975(degrees) == pytest.approx(
        float(stats.t.ppf(0.975, degrees)), abs=5e-6 if degrees > 31 else 5e-7
    )


def estimate(x: torch.Tensor, running_var: torch.Tensor, groups: int = 32) -> tuple[float, ...]:
    moments = GroupMoments(groups, x.shape[1])
    moments.add(x, torch.arange(len(x)) * groups // len(x))
    live = torch.ones(x.shape[1], dtype=torch.bool)
    found = shift_estimate(moments, running_var, 1e-5, live, Resampling.of(groups, 0))
    assert found.interval is not None
    return found.shift, found.interval.low, found.interval.high


def test_bias_correction_halves_channel_noise() -> None:
    """Healthy channels at 256 samples: the absolute value alone reads above 1.05, corrected less.

    One bootstrap repeats the bias on top of itself; at a shift of exactly 1 it takes out
    sqrt(2) - 1 of it.
    """
    corrected, uncorrected = [], []
    for seed in range(20):
        x = torch.randn(256, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        truth = torch.ones(64, dtype=torch.float64)
        corrected.append(math.log(estimate(x, truth)[0]))
        uncorrected.append(float(x.var(0).log().abs().mean()))
    assert min(uncorrected) > math.log(1.05)
    ratio = sum(corrected) / sum(uncorrected)
    assert ratio == pytest.approx(2 - math.sqrt(2), abs=0.05)


@pytest.mark.parametrize("shift", [1.1, 1.2, 3.0])
def test_interval_covers_the_truth(shift: float) -> None:
    """In 200 repetitions the 95 % interval holds the true shift at least 92 % of the time."""
    truth = torch.full((32,), shift, dtype=torch.float64)
    covered = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(512, 32, generator=generator, dtype=torch.float64)
        _, low, high = estimate(x, truth)
        covered += low <= shift <= high
    assert covered / 200 >= 0.92


@pytest.mark.parametrize("channels", [32, 256])
@pytest.mark.parametrize("samples", [200, 512])
@pytest.mark.parametrize("kind", ["1.0", "1.02", "1.1", "momentum", "an eighth halved"])
def test_interval_covers_what_the_correction_leaves(kind: str, samples: int, channels: int) -> None:
    """Near 1, where an absolute value has no unbiased estimator, and however many channels.

    The bias is the same in every channel, and does not average out; without room for it the
    interval of 256 healthy channels never held the truth.
    """
    covered, repetitions = 0, 50
    for seed in range(repetitions):
        generator = torch.Generator().manual_seed(seed)
        d = torch.zeros(channels, dtype=torch.float64)
        if kind == "momentum":
            d = 0.05 * torch.randn(channels, generator=generator, dtype=torch.float64)
        elif kind == "an eighth halved":
            d[: channels // 8] = math.log(2)
        else:
            d += math.log(float(kind))
        x = torch.randn(samples, channels, generator=generator, dtype=torch.float64)
        _, low, high = estimate(x, d.exp(), groups=min(32, samples // 8))
        covered += low <= math.exp(float(d.abs().mean())) <= high
    assert covered / repetitions >= 0.88


def test_what_the_correction_leaves() -> None:
    """The two bounds are those of the folded normal, over every distance from 1."""

    def folded(d: torch.Tensor, variance: float) -> torch.Tensor:
        """E abs(N(d, variance)), by the closed form."""
        spread = math.sqrt(variance)
        normal = math.sqrt(2 / math.pi) * spread * torch.exp(-(d**2) / (2 * variance))
        return normal + d * torch.erf(d / (spread * math.sqrt(2)))

    d = torch.linspace(0, 8, 8001, dtype=torch.float64)
    left = 2 * folded(d, 1.0) - folded(d, 2.0) - d

    assert float(left.max()) == pytest.approx(LEFT_ABOVE, abs=1e-6)
    assert 0 < LEFT_BELOW + float(left.min()) < 0.001
    assert float(left[d > 4].abs().max()) < 0.005
    assert float(left[d > 2].max()) <= 0.0
