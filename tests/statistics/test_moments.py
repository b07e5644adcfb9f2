"""Moments against the variance of everything, concatenated, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from varshift_cli.statistics import GroupMoments
from varshift_cli.statistics import moments as moments_of


def direct(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = x.double().movedim(1, -1).flatten(0, -2)
    return flat.mean(0), flat.var(0, unbiased=True)


SHAPES = [(40, 5), (40, 5, 7), (40, 5, 6, 4), (40, 5, 3, 2, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cuts", [(40,), (1, 39), (13, 13, 13, 1), (1,) * 40])
def test_any_cut_gives_the_direct_moments(shape: tuple[int, ...], cuts: tuple[int, ...]) -> None:
    """However samples are batched, mean and variance are those of the concatenation."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 2
    groups = torch.arange(40) % 8
    moments = GroupMoments(8, 5)
    for part, group in zip(x.split(cuts), groups.split(cuts), strict=True):
        moments.add(part, group)
    mean, var = direct(x)
    pooled = moments.pooled()
    torch.testing.assert_close(pooled.mean, mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(pooled.var, var, rtol=1e-6, atol=0)
    for group in range(8):
        _, expected = direct(x[groups == group])
        weights = torch.zeros(1, 8, dtype=torch.float64)
        weights[0, group] = 1
        torch.testing.assert_close(moments.reweighted(weights)[1][0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [*SHAPES, (40, 5, 2, 2), (40, 5, 31), (40, 5, 50), (40, 5, 1)])
@pytest.mark.parametrize("cuts", [(40,), (1, 39), (13, 13, 13, 1), (1,) * 40])
@pytest.mark.parametrize("mean", [2.0, 100.0])
def test_a_single_group_gives_the_direct_moments(
    shape: tuple[int, ...], cuts: tuple[int, ...], mean: float
) -> None:
    """Whether rows or columns are summed first, the figures are those of the concatenation."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.3 + mean
    for layout in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
        moments = GroupMoments(1, 5)
        for part in layout.split(cuts):
            moments.add(part, 0)
        expected_mean, expected_var = direct(x)
        pooled = moments.pooled()
        assert pooled.count == x.numel() / 5
        torch.testing.assert_close(pooled.mean, expected_mean, rtol=1e-7, atol=0)
        # A mean of 330 spreads, rounded to float32, costs two digits.
        torch.testing.assert_close(pooled.var, expected_var, rtol=1e-5, atol=0)


def test_rows_beyond_a_piece_are_those_of_one_piece() -> None:
    """Rows that are taken a megabyte at a time give the same figures, ragged end included."""
    x = torch.randn(37, 3, 170, 170, generator=torch.Generator().manual_seed(0)) + 5
    whole = moments_of._by_deviation(x.reshape(37 * 3, -1), 1)
    pieces = moments_of._in_pieces(x.reshape(37 * 3, -1))
    assert x.numel() > 3 * moments_of._PIECE
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("group", [0, torch.zeros(64, dtype=torch.int64)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_large_mean_with_tiny_spread_keeps_its_digits(
    group: int | torch.Tensor, channels_last: bool
) -> None:
    """Mean 1000 and variance 1e-4 survive, where E[x^2] - E[x]^2 in float32 gives 0 or less."""
    generator = torch.Generator().manual_seed(0)
    x = 1000 + 0.01 * torch.randn(64, 3, 8, 8, generator=generator)
    naive = (x.square().mean(dim=(0, 2, 3)) - x.mean(dim=(0, 2, 3)).square()).abs()
    assert bool(((naive / 1e-4 - 1).abs() > 0.5).any())
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    moments = GroupMoments(1, 3)
    for part in x.split(16):
        moments.add(part, group if isinstance(group, int) else group[:16])
    torch.testing.assert_close(moments.pooled().var, direct(x)[1], rtol=2e-3, atol=0)


def test_class_sorted_batches_keep_the_spread_between_them() -> None:
    """Sorting changes nothing: the spread of batch means is part of the variance."""
    x = torch.cat([torch.randn(50, 2) + 3 * label for label in range(4)])
    moments = GroupMoments(1, 2)
    for part in x.split(50):
        moments.add(part, 0)
    torch.testing.assert_close(moments.pooled().var, direct(x)[1], rtol=1e-6, atol=0)


def test_half_precision_is_upcast_first() -> None:
    """bf16 input is summed in wider precision: 500 batches of mean 10 give mean 10, not 8."""
    moments = GroupMoments(1, 1)
    for _ in range(500):
        moments.add(torch.full((4, 1, 4), 10.0, dtype=torch.bfloat16), 0)
    assert float(moments.pooled().mean) == pytest.approx(10.0, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 2**16),
)
def test_scaling_and_shifting_scale_and_shift(scale: float, offset: float, seed: int) -> None:
    """var(a x + b) = a^2 var(x), mean(a x + b) = a mean(x) + b."""
    x = torch.randn(30, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain, moved = GroupMoments(1, 4), GroupMoments(1, 4)
    for part in x.split(7):
        plain.add(part, 0)
        moved.add(part * scale + offset, 0)
    torch.testing.assert_close(
        moved.pooled().var, plain.pooled().var * scale**2, rtol=1e-7, atol=1e-12
    )
    torch.testing.assert_close(
        moved.pooled().mean, plain.pooled().mean * scale + offset, rtol=1e-9, atol=1e-9
    )


def test_doubling_a_group_is_counting_it_twice() -> None:
    """A bootstrap weight of 2 equals having the group's samples twice."""
    x = torch.randn(24, 3, 4, dtype=torch.float64)
    groups = torch.arange(24) % 3
    moments = GroupMoments(3, 3)
    moments.add(x, groups)
    twice = torch.cat([x, x[groups == 1]])
    mean, var = moments.reweighted(torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(mean[0], direct(twice)[0])
    torch.testing.assert_close(var[0], direct(twice)[1])
