"""The interval of a mean, against how often it holds the mean, and where one value is far out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from varshift_cli.statistics import mean_interval

LAWS: dict[str, tuple[Callable[[int], Tensor], float]] = {
    "normal": (torch.randn, 0.0),
    "exponential": (lambda n: torch.empty(n).exponential_(), 1.0),
    "squares": (lambda n: torch.randn(n).square(), 1.0),
    "right and wrong": (lambda n: torch.randint(-1, 2, (n,)).double(), 0.0),
}


@pytest.mark.parametrize("count", [30, 200])
@pytest.mark.parametrize("law", LAWS)
def test_it_holds_the_mean(law: str, count: int) -> None:
    """In 95 % of 300 repetitions, less what skewness takes of few values."""
    torch.manual_seed(0)
    draw, mean = LAWS[law]
    found = [mean_interval(draw(count)) for _ in range(300)]
    held = sum(each.low <= mean <= each.high for each in found) / len(found)
    assert (0.87 if count == 30 else 0.91) <= held <= 0.985


def test_one_value_far_out_does_not_hide_the_others() -> None:
    """599 samples that lose 0.3 each and one that loses 1,000: a loss. By the error it is none."""
    torch.manual_seed(0)
    values = torch.randn(600) * 0.5 - 0.3
    values[17] = -1000.0
    by_error = values.mean() + 1.96 * values.std() / 600**0.5
    assert float(by_error) > 0.0
    assert mean_interval(values).high < 0.0
    values[17] = 1000.0
    found = mean_interval(values)
    assert found.low < 0.0 < found.high


def test_it_is_the_same_every_time() -> None:
    """Draws are seeded, and leave the user's generator alone."""
    values = torch.rand(1000)
    state = torch.get_rng_state()
    assert mean_interval(values) == mean_interval(values)
    assert torch.equal(torch.get_rng_state(), state)
