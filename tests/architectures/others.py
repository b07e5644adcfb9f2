"""Networks for points, sound, brain waves, text lines, graphs and volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.noisy import DropPath, GaussianDropout


class PointNet(nn.Module):
    """Shared MLPs over points, a learned transform, a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU())
        self.matrix = nn.Linear(8, 9)
        self.points = nn.Sequential(
            nn.Conv1d(3, 8, 1),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Conv1d(8, 12, 1),
            nn.BatchNorm1d(12),
        )
        self.head = nn.Sequential(
            nn.Linear(12, 10), nn.Dropout(0.3), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 4)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        matrix = self.matrix(self.transform(x).amax(2)).view(-1, 3, 3)
        x = torch.bmm(matrix, x)
        return self.head(self.points(x).amax(2)), matrix


class EEGNet(nn.Module):
    """Temporal, depthwise spatial and separable convolutions, each with BN and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.temporal = nn.Sequential(
            nn.Conv2d(1, 4, (1, 9), padding=(0, 4), bias=False), nn.BatchNorm2d(4)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(4, 8, (6, 1), groups=4, bias=False),
            nn.BatchNorm2d(8),
            nn.ELU(),
            nn.AvgPool2d((1, 2)),
            nn.Dropout(0.5),
        )
        self.separable = nn.Sequential(
            nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=8, bias=False),
            nn.Conv2d(8, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ELU(),
            nn.AvgPool2d((1, 4)),
            nn.Dropout(0.5),
        )
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.separable(self.spatial(self.temporal(x))).flatten(1))
        return out


class Temporal(nn.Module):
    """Dilated causal convolutions with dropout of channels."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.conv1 = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.bn1, self.drop1 = nn.BatchNorm1d(channels), nn.Dropout1d(0.2)
        self.conv2 = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.bn2, self.drop2 = nn.BatchNorm1d(channels), nn.Dropout1d(0.2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.drop1(functional.relu(self.bn1(self.conv1(functional.pad(x, (self.pad, 0))))))
        out = self.drop2(functional.relu(self.bn2(self.conv2(functional.pad(out, (self.pad, 0))))))
        return functional.relu(x + out)


def tcn() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 1), Temporal(6, 1), Temporal(6, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


def m5() -> nn.Module:
    """Raw audio: strided convolutions."""
    return nn.Sequential(
        nn.Conv1d(1, 8, 16, 4), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.2),
        nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv1d(8, 12, 3), nn.BatchNorm1d(12), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(12, 4),
    )  # fmt: skip


class Crnn(nn.Module):
    """Convolutions, a GRU with dropout between its layers, BN over features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.gru = nn.GRU(4 * 6, 8, 2, dropout=0.4, bidirectional=True, batch_first=True)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.project, self.last = nn.Linear(16, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(self.conv(x).permute(0, 3, 1, 2).flatten(2))
        x = self.project(self.drop(self.norm(states.transpose(1, 2))).transpose(1, 2))
        out: Tensor = self.last(x.transpose(1, 2))
        return out


class GraphNet(nn.Module):
    """Message passing over one graph per batch; BN over nodes; keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 8)
        self.bn1, self.bn2 = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
        self.noise = GaussianDropout(0.3)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        x = functional.relu(self.bn1(self.first(features)))
        messages = self.noise(x)[source]
        x = x + torch.zeros_like(x).index_add(0, target, messages)
        out: Tensor = self.bn2(self.second(functional.dropout(x, 0.2, self.training)))
        return out


def volumes() -> nn.Module:
    """A 3d network with dropout of channels."""
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout3d(0.3),
        nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


class TwoInputs(nn.Module):
    """An image and numbers, joined; a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.numbers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.4))
        self.joint, self.last, self.path = nn.Linear(12, 8), nn.BatchNorm1d(8), DropPath(0.2)

    def forward(self, image: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        seen = self.image(image).mean((2, 3))
        joint = self.joint(torch.cat([seen, self.path(self.numbers(numbers))], dim=1))
        return {"logits": self.last(joint), "seen": seen}


class Attending(nn.Module):
    """A transformer encoder layer with BN in LayerNorm's place."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.norm1, self.norm2 = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
        self.up, self.down, self.drop = nn.Linear(8, 16), nn.Linear(16, 8), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        attended, _ = self.attention(x, x, x, need_weights=False)
        x = self.norm1((x + self.drop(attended)).transpose(1, 2)).transpose(1, 2)
        x = x + self.drop(self.down(functional.relu(self.up(x))))
        out: Tensor = self.norm2(x.transpose(1, 2))
        return out
