"""What a forward holds on to at its BatchNorm calls, against what can be counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.nets import batches_of
from varshift_cli.instrument import borrowed, find_batch_norms, trace_wiring

COPY = 10
"""Values of the input: the batch may be handed in as a copy."""


class Chain(nn.Sequential):
    """Linear, BN, ReLU, in-place ReLU, twice: only the BN input is alive at a BN call."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(10, 50), nn.BatchNorm1d(50), nn.ReLU(), nn.ReLU(inplace=True)),
            *(nn.Linear(50, 30), nn.BatchNorm1d(30)),
        )

    held = 50


class Skip(nn.Module):
    """A skip connection of 20 values is alive while the branch of 40 goes through BN."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Linear(10, 20), nn.Linear(20, 40), nn.Linear(40, 20)
        self.bn = nn.BatchNorm1d(40)

    held = 60

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = x.view(-1, 20) + self.down(torch.relu(self.bn(self.up(x))))
        return out


class Outside(nn.Module):
    """BN over a view of the input itself: nothing of its own is held."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(10)

    held = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(x.view(-1, 10))
        return out


class Dropped(nn.Module):
    """A dropout's output of 50 values waits beside its input, and beside what BN gets of it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(10, 50), nn.Linear(50, 10)
        self.drop, self.bn = nn.Dropout(0.5), nn.BatchNorm1d(10)

    held = 50 + 50 + 10

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        y = self.drop(x)
        out: Tensor = self.bn(self.down(y)).sum() + x.sum() + y.sum()
        return out


@pytest.mark.parametrize("make", [Chain, Skip, Outside, Dropped])
def test_live_bytes_are_those_counted_by_hand(make: type[nn.Module]) -> None:
    """Four bytes for every value that is still needed at the fullest BN call."""
    model = make()
    (batch,) = batches_of(torch.randn(7, 10), 7)
    with borrowed(model, find_batch_norms(model)) as instrumented:
        found = trace_wiring(instrumented, batch).live_bytes
    assert found in {4 * model.held, 4 * (model.held + COPY)}
