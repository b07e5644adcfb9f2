"""Small nets with known wiring, shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from varshift_cli.records import Batch


class Mlp(nn.Module):
    """Linear, BN, ReLU, Dropout, repeated: dropout reaches every BN but the first by weights."""

    def __init__(self, p: float = 0.5, width: int = 24, depth: int = 3, features: int = 12) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [
                nn.Linear(features, width),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout(p),
            ]
            features = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features) -> (N, 4)."""
        logits: Tensor = self.head(self.body(x))
        return logits


class ConvNet(nn.Module):
    """Conv, module and functional dropout, residual sum, BN without affine, BN1d in the head."""

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        self.p = p
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(p)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8, affine=False)
        self.fc = nn.Linear(8, 16)
        self.bn3 = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = x + functional.relu(self.bn2(self.conv2(self.drop(x))))
        x = self.fc(x.mean(dim=(2, 3)))
        x = functional.dropout(x, self.p, self.training)
        logits: Tensor = self.head(functional.relu(self.bn3(x)))
        return logits


class Straight(nn.Module):
    """Dropout straight into BN1d, nothing else."""

    def __init__(self, features: int, p: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features) -> (N, features)."""
        out: Tensor = self.bn(self.drop(x))
        return out


def batches_of(x: Tensor, size: int, labels: Tensor | None = None) -> tuple[Batch, ...]:
    """Cut samples into batches."""
    return tuple(
        Batch(
            (x[at : at + size],),
            {},
            None if labels is None else labels[at : at + size],
            len(x[at : at + size]),
        )
        for at in range(0, len(x), size)
    )


def warmed_up(model: nn.Module, x: Tensor, steps: int = 30, size: int = 64) -> nn.Module:
    """Let training mode gather running statistics, dropout on, weights untouched."""
    model.train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(steps):
            model(x[torch.randint(len(x), (size,), generator=generator)])
    return model.eval()


def captured_inputs(model: nn.Module, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """What enters BN modules in one plain forward, as a float64 matrix (values, C).

    An oracle by forward hooks: it shares nothing with varshift's interception.
    """
    caught: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def catch(name: str) -> object:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            caught[name] = args[0].detach().double().movedim(1, -1).flatten(0, -2)

        return modules[name].register_forward_pre_hook(hook)

    handles = [catch(name) for name in names]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    return caught


class FunctionalNorm(nn.Module):
    """BatchNorm by a functional call on buffers of its own."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, features))
        self.bias = nn.Parameter(torch.linspace(-0.5, 0.5, features))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training
        )


class OneNet(nn.Module):
    """Everything that a container may hide.

    BN1d, BN2d, functional BN, BN without affine, module and functional dropout, a residual sum.
    No dropout's input has another user: a recorder in eval mode could not tell the two apart.
    """

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        self.p = p
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8, affine=False)
        self.drop = nn.Dropout2d(p)
        self.conv3 = nn.Conv2d(8, 6, 3, padding=1)
        self.norm = FunctionalNorm(6)
        self.fc = nn.Linear(6, 16)
        self.bn3 = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = x + self.drop(functional.relu(self.bn2(self.conv2(x))))
        x = functional.relu(self.norm(self.conv3(x)))
        x = self.fc(x.mean(dim=(2, 3)))
        x = functional.dropout(x, self.p, self.training)
        logits: Tensor = self.head(functional.relu(self.bn3(x)))
        return logits
