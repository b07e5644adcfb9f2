"""Noise layers that shift the variance before BatchNorm less than dropout, or in another way.

    from varshift_cli.nn import Uout, GaussianDropout

They multiply by noise of mean 1, so that the mean is kept and ``eval()`` needs no rescaling, as in
inverted dropout. They draw from torch's global generator, and hold no parameter and no buffer: a
state dict is the same with and without them. ``DropoutLinear`` is where
:func:`varshift_cli.move_dropout` puts a dropout.
"""

from varshift_cli.nn.gaussian import GaussianDropout
from varshift_cli.nn.linear import DropoutLinear
from varshift_cli.nn.uout import Uout

__all__ = ["DropoutLinear", "GaussianDropout", "Uout"]
