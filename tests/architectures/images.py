"""Networks for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.architectures.parts import Residual, Shuffle, SqueezeExcite, conv_bn, head
from tests.noisy import DropBlock2d, DropPath, StochasticDepth


def resnet_basic() -> nn.Module:
    """ResNet with basic blocks and DropBlock."""

    def block(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
        branch = nn.Sequential(
            *conv_bn(c_in, c_out, 3, stride),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            DropBlock2d(0.2),
            nn.BatchNorm2d(c_out),
        )
        skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))
        return Residual(branch, skip if stride > 1 or c_in != c_out else None)

    return nn.Sequential(conv_bn(3, 8), block(8, 8), block(8, 12, 2), block(12, 12), head(12))


def _bottleneck(
    c_in: int, width: int, c_out: int, *, groups: int = 1, se: bool = False
) -> nn.Module:
    branch = nn.Sequential(
        *conv_bn(c_in, width, 1),
        *conv_bn(width, width, 3, groups=groups),
        nn.Dropout(0.2),
        nn.Conv2d(width, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out),
        SqueezeExcite(c_out) if se else nn.Identity(),
    )
    skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
    return Residual(branch, skip if c_in != c_out else None)


def resnet_bottleneck() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), _bottleneck(8, 6, 16), _bottleneck(16, 6, 16), head(16))


def resnext() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), _bottleneck(8, 8, 16, groups=4), _bottleneck(16, 8, 16, groups=4), head(16)
    )


def senet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), _bottleneck(8, 6, 16, se=True), _bottleneck(16, 6, 16, se=True), head(16)
    )


class PreActivation(nn.Module):
    """BN, ReLU, conv, dropout, BN, ReLU, conv: PreResNet and WRN; ReLU in place on the skip."""

    def __init__(self, c_in: int, c_out: int, p: float) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False)
        self.drop, self.bn2 = nn.Dropout(p), nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()
        self.drop_path = DropPath(0.1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(functional.relu(self.bn1(x)))
        out = self.conv2(functional.relu_(self.bn2(self.drop(out))))
        total: Tensor = self.skip(x) + self.drop_path(out)
        return total


def preresnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        PreActivation(8, 8, 0.5),
        PreActivation(8, 8, 0.5),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        head(8),
    )


def wide_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        PreActivation(4, 24, 0.3),
        PreActivation(24, 24, 0.3),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        head(24),
    )


class Dense(nn.Module):
    """Every layer sees all before it."""

    def __init__(self, c_in: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(c_in + index * growth),
                nn.ReLU(),
                nn.Conv2d(c_in + index * growth, growth, 3, padding=1, bias=False),
                nn.Dropout(0.2),
            )
            for index in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def densenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        Dense(6, 4, 3),
        nn.BatchNorm2d(18),
        nn.Conv2d(18, 8, 1),
        nn.AvgPool2d(2),
        Dense(8, 4, 2),
        nn.BatchNorm2d(16),
        head(16),
    )


def _inverted(
    c_in: int, c_out: int, *, se: bool = False, act: type[nn.Module] = nn.ReLU6
) -> nn.Module:
    width = 2 * c_in
    branch = nn.Sequential(
        nn.Conv2d(c_in, width, 1, bias=False),
        nn.BatchNorm2d(width),
        act(),
        nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        act(),
        SqueezeExcite(width, functional.hardsigmoid) if se else nn.Identity(),
        nn.Conv2d(width, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out),
    )
    return Residual(branch, act=False) if c_in == c_out else branch


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 6, 3, 2), _inverted(6, 8), _inverted(8, 8), conv_bn(8, 12, 1), head(12)
    )


def mobilenet_v3() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 6, 3, 2),
        _inverted(6, 8, se=True, act=nn.Hardswish),
        _inverted(8, 8, se=True, act=nn.Hardswish),
        conv_bn(8, 12, 1),
        head(12),
    )


def efficientnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 6, 3, 2),
        _inverted(6, 6, se=True, act=nn.SiLU),
        _inverted(6, 6, se=True, act=nn.SiLU),
        conv_bn(6, 8, 1),
        head(8, 0.4),
    )


class ShuffleUnit(nn.Module):
    """Half of the channels go by, the other half is worked on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Dropout2d(0.2),
            conv_bn(half, half, 1),
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, dim=1)
        out: Tensor = self.shuffle(torch.cat([kept, self.branch(worked)], dim=1))
        return out


def shufflenet() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8, 3, 2), ShuffleUnit(8), ShuffleUnit(8), head(8))


class Ghost(nn.Module):
    """Cheap channels beside the expensive ones."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.primary, self.cheap = conv_bn(c_in, c_out // 2, 1), conv_bn(c_out // 2, c_out // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], dim=1)


def ghostnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 6, 3, 2), Residual(Ghost(6, 6)), nn.Dropout(0.2), Ghost(6, 8), head(8)
    )


def regnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8, 3, 2),
        _bottleneck(8, 8, 8, groups=2, se=True),
        _bottleneck(8, 16, 16, groups=4, se=True),
        head(16),
    )


class Inception(nn.Module):
    """Four branches side by side, an auxiliary classifier in training alone."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_bn(c_in, 4, 1),
                nn.Sequential(conv_bn(c_in, 4, 1), conv_bn(4, 4, 3)),
                nn.Sequential(conv_bn(c_in, 2, 1), conv_bn(2, 4, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(c_in, 4, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class GoogLeNet(nn.Module):
    """Returns its auxiliary output as well, in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv_bn(3, 6, 3, 2), Inception(6)
        self.drop, self.second = nn.Dropout(0.3), Inception(16)
        self.aux = nn.Sequential(conv_bn(16, 4, 1), head(4))
        self.head = head(16, 0.4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.first(self.stem(x))
        aux = self.aux(x) if self.training else None
        x = self.head(self.second(self.drop(x)))
        return x if aux is None else (x, aux)


def vgg_bn() -> nn.Module:
    return nn.Sequential(
        *conv_bn(3, 8),
        nn.Dropout(0.3),
        *conv_bn(8, 8),
        nn.MaxPool2d(2),
        *conv_bn(8, 12),
        nn.Dropout(0.4),
        *conv_bn(12, 12),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(12 * 16, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


class UNet(nn.Module):
    """Down, up, and a bridge; an image comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = conv_bn(3, 6), nn.Sequential(conv_bn(6, 10), nn.Dropout2d(0.4))
        self.up, self.merge = nn.ConvTranspose2d(10, 6, 2, 2), conv_bn(12, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.down(x)
        bottom = self.bottom(functional.max_pool2d(x, 2))
        return {"out": self.out(self.merge(torch.cat([x, self.up(bottom)], dim=1)))}


def pose_net() -> nn.Module:
    """SimpleBaseline: deconvolutions to heat maps."""
    return nn.Sequential(
        conv_bn(3, 8, 3, 2),
        nn.Dropout(0.2),
        nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )


class ConvNeXt(nn.Module):
    """A large depthwise kernel, BN in LayerNorm's place, a layer scale, stochastic depth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.expand, self.project = nn.Conv2d(channels, 16, 1), nn.Conv2d(16, channels, 1)
        self.gamma = nn.Parameter(torch.full((channels,), 2.0))
        self.depth = StochasticDepth(0.5, "row")

    def forward(self, x: Tensor) -> Tensor:
        branch = self.project(functional.gelu(self.expand(self.norm(self.depthwise(x)))))
        out: Tensor = x + self.depth(self.gamma.view(1, -1, 1, 1) * branch)
        return out


def convnext() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8, 3, 2), ConvNeXt(8), ConvNeXt(8), nn.BatchNorm2d(8), head(8))


class Mixer(nn.Module):
    """Mixes tokens, then channels; BN over tokens and over channels."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.tokens = nn.BatchNorm1d(tokens), nn.Linear(tokens, tokens)
        self.norm2, self.channels = nn.BatchNorm1d(tokens), nn.Linear(channels, channels)
        self.drop, self.drop_path = nn.Dropout(0.2), DropPath(0.2)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(self.drop(functional.gelu(mixed)))
        out: Tensor = x + self.drop_path(self.drop(functional.gelu(self.channels(self.norm2(x)))))
        return out


class MlpMixer(nn.Module):
    """Patches, mixers, a mean over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.mixers = nn.Sequential(Mixer(16, 8), Mixer(16, 8))
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixers(self.patches(x).flatten(2).transpose(1, 2))
        out: Tensor = self.head(self.norm(x.mean(1)))
        return out


class Fractal(nn.Module):
    """Two columns joined by their mean, each dropped by itself in training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.short = nn.Sequential(conv_bn(channels, channels), StochasticDepth(0.15))
        self.long = nn.Sequential(
            conv_bn(channels, channels), conv_bn(channels, channels), StochasticDepth(0.15)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.short(x) + self.long(x)) / 2
        return out


def fractalnet() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8, 3, 2), Fractal(8), Fractal(8), head(8))


class Skipping(nn.Module):
    """Stochastic depth as first published: in training a batch may skip the block altogether."""

    def __init__(self, block: nn.Module, survival_prob: float) -> None:
        super().__init__()
        self.block, self.survival_prob = block, survival_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + self.survival_prob * self.block(x)
        if torch.rand(()) < self.survival_prob:
            return x + self.block(x)
        return x


class StochasticDepthNet(nn.Module):
    """Registered by its user: --noise FILE.py:Skipping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.blocks = nn.Sequential(
            *(Skipping(nn.Sequential(*conv_bn(8, 8), nn.BatchNorm2d(8)), 0.8) for _ in range(3))
        )
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)))
        return out
