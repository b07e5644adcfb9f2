"""The nets of the zoo: a few hundred to a few thousand weights, for images of 8 x 8."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 12
CLASSES = 10


class Conv(nn.Module):
    """Four times conv, BN, ReLU; noise of choice before chosen BN, straight or through weights.

    Args:
        straight: Noise between convolution and BN, made anew for every layer.
        through: Noise before the convolution.
        head: Noise before the last linear layer, behind all BN.
        bn: Arguments of every BN.
        channels: Of the input.
        bias: Of the convolutions.
    """

    def __init__(self, straight=None, through=None, head=None, bn=None, channels=1, bias=False):
        super().__init__()
        layers: list[nn.Module] = []
        features = channels
        for index in range(4):
            if through is not None and index:
                layers.append(through())
            layers.append(nn.Conv2d(features, WIDTH, 3, padding=1, bias=bias))
            if straight is not None and index:
                layers.append(straight())
            layers += [nn.BatchNorm2d(WIDTH, **(bn or {})), nn.ReLU()]
            if index == 1:
                layers.append(nn.MaxPool2d(2))
            features = WIDTH
        self.body = nn.Sequential(*layers)
        self.noise = nn.Identity() if head is None else head()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.noise(self.body(x).mean(dim=(2, 3))))


class Mlp(nn.Module):
    """Three times linear, BN, ReLU; noise straight before BN or before the next linear layer."""

    def __init__(self, straight=None, through=None, head=None, bn=None, channels=1):
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        features = 64 * channels
        for index in range(3):
            if through is not None and index:
                layers.append(through())
            layers.append(nn.Linear(features, 32))
            if straight is not None and index:
                layers.append(straight())
            layers += [nn.BatchNorm1d(32, **(bn or {})), nn.ReLU()]
            features = 32
        self.body = nn.Sequential(*layers)
        self.noise = nn.Identity() if head is None else head()
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.noise(self.body(x)))


class DropPath(nn.Module):
    """Drops the whole branch of a sample."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * torch.bernoulli(x.new_full(shape, keep)) / keep


class Residual(nn.Module):
    """Pre-activation blocks: BN, ReLU, conv, added to a stream; noise on the branch."""

    def __init__(self, branch=None, blocks=3, bn=None):
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(WIDTH, **(bn or {})) for _ in range(blocks))
        self.convs = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(blocks))
        self.noise = nn.ModuleList(
            nn.Identity() if branch is None else branch() for _ in range(blocks)
        )
        self.last = nn.BatchNorm2d(WIDTH, **(bn or {}))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv, noise in zip(self.norms, self.convs, self.noise, strict=True):
            x = x + noise(conv(functional.relu(norm(x))))
        return self.head(functional.relu(self.last(x)).mean(dim=(2, 3)))


class Forgetful(nn.Module):
    """A functional dropout that does not ask for the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Conv()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body.body[:3]:
            x = layer(x)
        x = functional.dropout(x, 0.3)
        for layer in self.body.body[3:]:
            x = layer(x)
        return self.body.head(x.mean(dim=(2, 3)))


class Shared(nn.Module):
    """One BN for two branches whose inputs differ: the image, and the image at half size."""

    def __init__(self, gain: float = 2.0) -> None:
        super().__init__()
        self.gain = gain
        self.near = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.far = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.last = nn.BatchNorm2d(WIDTH)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        near = functional.relu(self.norm(self.near(x)))
        far = functional.relu(self.norm(self.far(self.gain * functional.avg_pool2d(x, 2))))
        near = functional.relu(self.last(self.conv(near)))
        return self.head(torch.cat([near.mean(dim=(2, 3)), far.mean(dim=(2, 3))], dim=1))


class Siamese(nn.Module):
    """One BN that sees an image and its negative in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        views = [functional.relu(self.norm(self.conv(view))) for view in (x, 0.4 * x - 1.0)]
        return self.head(torch.cat([view.mean(dim=(2, 3)) for view in views], dim=1))


class HalfNormed(nn.Module):
    """BN once, group norms elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(3, WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=(2, 3)))
