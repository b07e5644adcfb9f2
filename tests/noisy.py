"""Noise layers written by hand, with the class names that libraries give them."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropPath(nn.Module):
    """A whole sample is dropped, as in timm."""

    def __init__(self, drop_prob: float = 0.3, *, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep if self.scale_by_keep else mask)


class StochasticDepth(nn.Module):
    """A sample ("row") or the whole batch ("batch") is dropped, as in torchvision."""

    def __init__(self, p: float = 0.3, mode: str = "row") -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows = x.shape[0] if self.mode == "row" else 1
        mask = torch.empty([rows] + [1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return x * mask.bernoulli_(1.0 - self.p).div_(1.0 - self.p)


class DropBlock2d(nn.Module):
    """Squares of every channel are dropped, each position being covered alike.

    The rate of what is kept is therefore known: (1 - gamma) ** block_size ** 2.
    """

    def __init__(self, p: float = 0.3, block_size: int = 3) -> None:
        super().__init__()
        self.p, self.block_size = p, block_size

    @property
    def gamma(self) -> float:
        return 1.0 - (1.0 - self.p) ** (1.0 / self.block_size**2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        n, c, h, w = x.shape
        more = self.block_size - 1
        seeds = torch.rand(n, c, h + more, w + more, device=x.device) < self.gamma
        dropped = functional.max_pool2d(seeds.to(x.dtype), self.block_size, stride=1)
        return x * (1.0 - dropped) / (1.0 - self.p)


class GaussianDropout(nn.Module):
    """Times N(1, p / (1 - p)), as in Keras."""

    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * torch.normal(1.0, (self.p / (1.0 - self.p)) ** 0.5, x.shape, device=x.device)


class GaussianNoise(nn.Module):
    """Plus N(0, sigma^2)."""

    def __init__(self, sigma: float = 0.7) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class Uout(nn.Module):
    """x + x r with r uniform in (-beta, beta) (Li et al., eq. 15)."""

    def __init__(self, beta: float = 0.8) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x + x * torch.empty_like(x).uniform_(-self.beta, self.beta)


class MyScaledDropout(nn.Dropout):
    """A subclass of torch's with a forward of its own, in place."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x.mul_(torch.bernoulli(torch.full_like(x, 1.0 - self.p)) / (1.0 - self.p))
        return x


class Jitter(nn.Module):
    """Noise under a name that nobody could guess; from Python's own generator."""

    def __init__(self, strength: float = 0.5) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.0 + self.strength * random.choice((-1.0, 1.0))) if self.training else x  # noqa: S311
