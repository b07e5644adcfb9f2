"""Uout: uniform multiplicative noise (Li et al., CVPR 2019, arXiv 1801.05134, eq. 15)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from varshift_cli.errors import UsageError


class Uout(nn.Module):
    r"""In training ``x + x * r`` with r uniform in (-beta, beta), drawn for every element.

    The factor ``1 + r`` has mean 1 and variance beta^2 / 3. Straight before a BatchNorm (BN) whose
    input has mean c and variance v, eval() meets ``v / (v + beta^2/3 (v + c^2))`` of the variance
    of training: ``3 / (3 + beta^2)`` for c = 0, which is 0.997 at beta 0.1, where dropout of one
    half leaves 0.5. The paper tries beta 0.1, 0.2, 0.3 and 0.5 and recommends none of them, so
    there is no default.

    Shapes:
        Input and output: any shape, floating.

    Args:
        beta: Half the width of r, from 0 (no noise) to 1.

    Raises:
        UsageError: ``beta`` is not between 0 and 1.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        if not 0.0 <= beta <= 1.0:
            raise UsageError(f"Uout: beta must be between 0 and 1, but is {beta}")
        self.beta = float(beta)

    def forward(self, x: Tensor) -> Tensor:
        """Noise in training; the input itself in eval."""
        if not self.training or self.beta == 0.0:
            return x
        return x + x * torch.empty_like(x).uniform_(-self.beta, self.beta)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"beta={self.beta:g}"
