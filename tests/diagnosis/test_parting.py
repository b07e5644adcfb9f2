"""VS140: found where a noise is not what it says, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.measurement.test_prediction import NOISES, WEIGHTS, Net, smooth
from tests.nets import warmed_up
from varshift_cli import Report, scan


class DropPath(nn.Module):
    """Says that it drops whole samples, and drops single values twice as often."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """What it really does."""
        return functional.dropout(x, 2 * self.drop_prob, self.training)


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize("place", ["straight", "conv2d"])
def test_a_noise_that_is_not_what_it_says(place: str) -> None:
    """A DropPath that is a dropout of twice its p: a note, with both figures."""
    build, shape, norm = WEIGHTS[place]
    torch.manual_seed(0)
    x = smooth(shape)
    model = Net(DropPath(0.3), build(), norm(6 if place == "straight" else 8))
    report = scan(warmed_up(model, x), list(x.split(64)))
    (found,) = (finding for finding in report.findings if finding.code == "VS140")
    assert found.level.value == "note"
    assert found.layers == ("bn",)
    (evidence,) = found.evidence["predictions"]
    assert evidence["dropout"] == "noise"
    assert evidence["predicted"] != pytest.approx(evidence["measured"], rel=0.05)
    assert "expected of noise" in found.message


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", NOISES)
def test_honest_noise_raises_none(noise: str, seed: int) -> None:
    """Every noise of a known law: no VS140, at any seed."""
    build, shape, norm = WEIGHTS["conv2d"]
    torch.manual_seed(seed)
    x = smooth(shape, 256)
    model = warmed_up(Net(NOISES[noise](), build(), norm(8)), x)
    assert "VS140" not in codes(scan(model, x, seed=seed))
