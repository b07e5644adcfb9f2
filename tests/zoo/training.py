"""Data and training of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

TRAIN = 1200

Change = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""What is done to a batch: (x, targets, generator) -> (x, targets)."""


@cache
def digits(channels: int = 1) -> tuple[Tensor, Tensor]:
    """Training images (1200, channels, 8, 8), from 0 to 1, and their labels.

    With three channels each image has its class's colour, more or less.
    """
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16.0
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(99))[:TRAIN]
    x, y = x[order], y[order]
    if channels == 3:
        generator = torch.Generator().manual_seed(98)
        tint = (torch.rand(10, 3, 1, 1, generator=generator) + 0.2)[y]
        tint = tint + 0.2 * torch.rand(len(x), 3, 1, 1, generator=generator)
        x = x * tint * torch.tensor([1.0, 0.6, 0.25]).view(1, 3, 1, 1)
    return x, y


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int = 6
    batch: int = 32
    rate: float = 0.05
    decay: float = 0.0
    anneal: bool = True
    """Whether the step size falls to 0, as it usually does."""
    change: Change | None = None
    order: Callable[[Tensor, torch.Generator], list[Tensor]] | None = None
    """Batches of indices from labels; shuffled by default."""
    each_step: Callable[[nn.Module, int], None] | None = None
    mode: Callable[[nn.Module], None] = nn.Module.train


USUAL = Recipe()


def train(model: nn.Module, seed: int, recipe: Recipe = USUAL, channels: int = 1) -> nn.Module:
    """SGD with momentum and a falling step; the model in eval mode afterwards."""
    x, y = digits(channels)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        [each for each in model.parameters() if each.requires_grad],
        lr=recipe.rate,
        momentum=0.9,
        weight_decay=recipe.decay,
    )
    recipe.mode(model)
    total = recipe.epochs * len(list(batches(y, recipe, generator)))
    steps = 0
    for _ in range(recipe.epochs):
        for index in batches(y, recipe, generator):
            inputs, targets = x[index], functional.one_hot(y[index], 10).float()
            if recipe.change is not None:
                inputs, targets = recipe.change(inputs, targets, generator)
            if recipe.anneal:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate * (1.0 - steps / total)
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if recipe.each_step is not None:
                recipe.each_step(model, steps)
    assert all(each.isfinite().all() for each in model.parameters()), "training diverged"
    return model.eval()


def batches(y: Tensor, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of one epoch."""
    if recipe.order is not None:
        yield from recipe.order(y, generator)
        return
    order = torch.randperm(len(y), generator=generator)
    for index in order.split(recipe.batch):
        if len(index) == recipe.batch:
            yield index


def one_class_each(y: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Batches of one class, class after class."""
    found = []
    for label in range(10):
        members = (y == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        found += [index for index in members.split(24) if len(index) == 24]
    return found


def mixup(x: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Beta(1, 1), that is uniform, mixing weights."""
    share = torch.rand(len(x), 1, generator=generator)
    other = torch.randperm(len(x), generator=generator)
    mixed = share.view(-1, 1, 1, 1) * x + (1 - share).view(-1, 1, 1, 1) * x[other]
    return mixed, share * targets + (1 - share) * targets[other]


def noisy(x: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gaussian noise on every pixel."""
    return x + 0.35 * torch.randn(x.shape, generator=generator), targets


def run_forward(model: nn.Module, seed: int, steps: int, batch: int = 32) -> None:
    """Let training mode gather statistics, weights untouched."""
    x, _ = digits()
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        for _ in range(steps):
            model(x[torch.randint(len(x), (batch,), generator=generator)])
    model.eval()
