"""A small pre-activation ResNet for 8x8 digits, with dropout where you ask for it.

Shapes: N images, C channels, H x W pixels.
"""

import torch
from torch import Tensor, nn

PLACEMENTS = ("none", "before_last_bn", "before_last_conv", "after_all_bn")


class Bottleneck(nn.Module):
    """Pre-activation bottleneck, (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""

    def __init__(
        self, c_in: int, width: int, c_out: int, *, stride: int, p: float, where: str
    ) -> None:
        """Stack 1x1, 3x3 and 1x1 convolutions; p is the DROP probability."""
        super().__init__()
        self.where = where
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.drop = nn.Dropout(p) if where in {"before_last_bn", "before_last_conv"} else None
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        same_shape = stride == 1 and c_in == c_out
        self.shortcut = None if same_shape else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual branch to x, or to its projection where the shape changes."""
        skip: Tensor = x if self.shortcut is None else self.shortcut(x)
        out = self.conv1(torch.relu(self.bn1(x)))
        out = self.conv2(torch.relu(self.bn2(out)))
        if self.drop is not None and self.where == "before_last_bn":
            out = self.drop(out)
        out = torch.relu(self.bn3(out))
        if self.drop is not None and self.where == "before_last_conv":
            out = self.drop(out)
        residual: Tensor = self.conv3(out)
        return skip + residual


class PreResNet(nn.Module):
    """Twelve bottlenecks in three stages, (N, 1, 8, 8) -> (N, 10); 37 BatchNorm layers."""

    def __init__(self, p: float = 0.5, where: str = "before_last_bn") -> None:
        """Build the network; p is the DROP probability, where is one of PLACEMENTS."""
        super().__init__()
        if where not in PLACEMENTS:
            raise ValueError(f"where is one of {', '.join(PLACEMENTS)}; got {where!r}")
        self.conv = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        blocks: list[Bottleneck] = []
        c_in = 32
        for width, first_stride in ((8, 1), (16, 2), (32, 1)):
            for stride in (first_stride, 1, 1, 1):
                c_out = 4 * width
                blocks.append(Bottleneck(c_in, width, c_out, stride=stride, p=p, where=where))
                c_in = c_out
        self.body = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(c_in)
        self.drop = nn.Dropout(p) if where == "after_all_bn" else None
        self.fc = nn.Linear(c_in, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) for images (N, 1, 8, 8) with values in [0, 1]."""
        out = torch.relu(self.bn(self.body(self.conv(x))))
        out = out.mean(dim=(2, 3))
        if self.drop is not None:
            out = self.drop(out)
        logits: Tensor = self.fc(out)
        return logits


def build(p: float = 0.5, where: str = "before_last_bn") -> nn.Module:
    """Return the untrained network, (N, 1, 8, 8) -> (N, 10); p is the DROP probability.

    The defaults are the network of `model.pt`; `where="none"` is that of `no_dropout.pt`.
    Parameter and buffer names do not depend on `where`, so state dicts are interchangeable.
    """
    return PreResNet(p, where)
