"""What each kind of noise puts on a tensor: the first link of a prediction.

=====================  =========================  =====================================
noise                  variance of the factor     a draw for every
=====================  =========================  =====================================
Dropout                p / (1 - p)                element
Dropout1d, 2d, 3d      p / (1 - p)                sample and channel
Gaussian               sigma^2                    element
Uout                   beta^2 / 3                 element
stochastic depth       p / (1 - p)                sample
AlphaDropout           a^2 p (1 - p) (x - al)^2   element (FeatureAlphaDropout: channel)
=====================  =========================  =====================================

p is the DROP probability. AlphaDropout puts al = -1.758 in place of what it drops and scales by
a = ((1 + al^2 p)(1 - p))^-1/2; its mean is a (1 - p) x (Klambauer et al., 2017).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from varshift_cli.instrument.calls import DropoutCall, NoiseCall
from varshift_cli.instrument.images import Image, Lost, Units
from varshift_cli.instrument.noise import Law, NoiseKind
from varshift_cli.nn import GaussianDropout, Uout

_SATURATION = -1.7580993408473766
_PATHS = frozenset({"drop_path", "stochastic_depth"})


def source_of(call: NoiseCall, module: nn.Module | None, x: Tensor) -> Image | Lost:
    """The image of a noise in its own output ``x``, which is given with the noise off."""
    if isinstance(call, DropoutCall) and call.p is not None:
        return _dropout(call.kind, call.p, x)
    if isinstance(module, Uout):
        return _factor(x, module.beta / math.sqrt(3.0), Units.ELEMENT, positive=True)
    if isinstance(module, GaussianDropout):
        return _factor(x, module.sigma, Units.ELEMENT, positive=False)
    if call.kind.name in _PATHS and call.p is not None and call.p < 1.0:
        return _path(module, call.p, x)
    return Lost(f"no closed form for {call.kind.name}")


def spread_of(image: Image) -> float | None:
    """Variance of the factor; ``None`` for noise that is more than a factor."""
    return image.root**2 if image.surplus is None else None


def _dropout(kind: NoiseKind, p: float, x: Tensor) -> Image | Lost:
    units = Units.CHANNEL if kind.per_channel and x.dim() > 2 else Units.ELEMENT
    if p >= 1.0 and kind.law is Law.BERNOULLI:
        return Lost("it drops everything (p = 1)")
    if kind.alpha:
        scale = 1.0 / math.sqrt((1.0 + _SATURATION**2 * p) * (1.0 - p))
        amplitude = (x - _SATURATION) * (scale * math.sqrt(p * (1.0 - p)))
        return Image(units, amplitude, surplus=x * (scale * (1.0 - p) - 1.0))
    positive = kind.law is not Law.GAUSSIAN
    return _factor(x, math.sqrt(kind.spread(p)), units, positive=positive)


def _factor(x: Tensor, root: float, units: Units, *, positive: bool) -> Image:
    return Image(units, x * root, whole=True, positive=positive, root=root)


def _path(module: nn.Module | None, p: float, x: Tensor) -> Image | Lost:
    keep = 1.0 - p
    if getattr(module, "mode", "row") != "row":
        return Lost("its draws are shared by the whole batch")
    if getattr(module, "scale_by_keep", True):
        return _factor(x, math.sqrt(p / keep), Units.SAMPLE, positive=True)
    root = math.sqrt(p * keep)
    return Image(Units.SAMPLE, x * root, root=root, surplus=x * -p)
