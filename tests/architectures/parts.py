"""What the stand-ins are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.noisy import DropPath


def conv_bn(
    c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Conv, BN, ReLU."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


def head(channels: int, p: float = 0.2, classes: int = 5) -> nn.Sequential:
    """Pooling, dropout, classifier."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(p), nn.Linear(channels, classes)
    )


class Residual(nn.Module):
    """x + drop_path(branch(x)), with a projection where the shape changes."""

    def __init__(
        self, branch: nn.Module, skip: nn.Module | None = None, p: float = 0.2, *, act: bool = True
    ) -> None:
        super().__init__()
        self.branch, self.skip = branch, skip if skip is not None else nn.Identity()
        self.drop_path, self.act = DropPath(p), nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.skip(x) + self.drop_path(self.branch(x)))
        return out


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole image says."""

    def __init__(self, channels: int, gate: Callable[[Tensor], Tensor] = torch.sigmoid) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(
            self.expand(functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        )


class Shuffle(nn.Module):
    """Mixes the channels of groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
