"""Gaussian dropout: multiplicative normal noise (Srivastava et al., JMLR 15, 2014, section 10)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from varshift_cli.errors import UsageError


class GaussianDropout(nn.Module):
    r"""In training ``x * (1 + sigma r)`` with r standard normal, drawn for every element.

    With sigma = 1 it is the form that Li et al. (arXiv 1801.05134, section 5) quote. Noise of the
    same strength as a dropout of probability p has ``sigma^2 = p / (1 - p)``; it then shifts the
    variance before a BatchNorm exactly as much: ``v / (v + sigma^2 (v + c^2))`` for an input of
    mean c and variance v.

    Shapes:
        Input and output: any shape, floating.

    Args:
        sigma: Standard deviation of the factor, at least 0.

    Raises:
        UsageError: ``sigma`` is negative or not finite.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not (sigma >= 0.0 and math.isfinite(sigma)):
            raise UsageError(f"GaussianDropout: sigma must be 0 or more, but is {sigma}")
        self.sigma = float(sigma)

    @classmethod
    def from_p(cls, p: float) -> GaussianDropout:
        """As strong as dropout with DROP probability ``p``.

        Raises:
            UsageError: ``p`` is not in [0, 1).
        """
        if not 0.0 <= p < 1.0:
            raise UsageError(f"GaussianDropout.from_p: p must be in [0, 1), but is {p}")
        return cls(math.sqrt(p / (1.0 - p)))

    def forward(self, x: Tensor) -> Tensor:
        """Noise in training; the input itself in eval."""
        if not self.training or self.sigma == 0.0:
            return x
        return x * torch.empty_like(x).normal_(1.0, self.sigma)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"sigma={self.sigma:g}"
