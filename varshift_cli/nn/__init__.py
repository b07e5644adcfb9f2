"""Noise layers that shift the variance before BatchNorm less than dropout, or in another way.

    from varshift_cli.nn import Uout, GaussianDropout

Both multiply by noise of mean 1, so that the mean is kept and ``eval()`` needs no rescaling, as in
inverted dropout. They draw from torch's global generator, and hold no parameter and no buffer: a
state dict is the same with and without them.
"""

from varshift_cli.nn.gaussian import GaussianDropout
from varshift_cli.nn.uout import Uout

__all__ = ["GaussianDropout", "Uout"]
