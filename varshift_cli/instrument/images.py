"""What one noise has become of on its way: how large it is in every element of a tensor.

A multiplicative noise m with mean 1 adds Cov(m) terms to the variance of every linear function of
m x. With A the amplitude of the noise (root of its variance times the value it multiplies), a
linear map L of the tensor maps A to L A as long as it is known which elements share a draw:

* ``element``: every element has a draw of its own; after weights w the variance is L^2(A^2), the
  same map with squared weights (Li et al., eq. 9-14, without their assumptions on c, v and rho);
* ``channel``: a draw per sample and channel; weights add up A within a channel, then square;
* ``sample``: a draw per sample (stochastic depth); A goes through any linear map as it is;
* ``mixed``: behind weights, or otherwise entangled: only the variance of each element is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from varshift_cli.records import Case


class Units(StrEnum):
    """Which elements of a tensor share a draw."""

    ELEMENT = "element"
    CHANNEL = "channel"
    SAMPLE = "sample"
    MIXED = "mixed"


class Unpredictable(Exception):  # noqa: N818 - an answer, not an error
    """No closed form follows the noise through here; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One noise in one tensor.

    Attributes:
        units: Which elements share a draw.
        amplitude: A, of the tensor's shape; the *variance* of each element where units are mixed.
        case: ``a`` straight from the noise, ``b`` once weights lay between.
        whole: Whether the tensor is nothing but m x.
        positive: Whether m >= 0, so that positively homogeneous functions (ReLU) pass it on.
        root: Root of the variance of the factor: A = root x where ``whole``.
        surplus: What the tensor's mean over draws has more than the tensor with the noise off,
            same shape; ``None`` for noise of mean 1, and for AlphaDropout (a keep - 1) x.
        per: For ``channel``: how many consecutive features of dimension 1 share a draw.
        through: The last weights it came through, as whoever was told of them calls them.
    """

    units: Units
    amplitude: Tensor
    case: Case = Case.STRAIGHT
    whole: bool = False
    positive: bool = True
    root: float = 0.0
    surplus: Tensor | None = None
    per: int = 1
    through: Any = None

    @property
    def variance(self) -> Tensor:
        """Of each element, over draws."""
        return self.amplitude if self.units is Units.MIXED else self.amplitude.square()

    def mapped(self, amplitude: Tensor, surplus: Tensor | None = None) -> Image:
        """After a linear map that keeps track of the units."""
        return replace(self, amplitude=amplitude, surplus=surplus)

    def entangled(self, variance: Tensor, surplus: Tensor | None = None) -> Image:
        """After a map behind which only variances are known."""
        return replace(
            self, units=Units.MIXED, amplitude=variance, surplus=surplus, whole=False, per=1
        )

    def scaled(self, factor: Tensor | float) -> Image:
        """After multiplication by what does not depend on the noise."""
        power = 2 if self.units is Units.MIXED else 1
        surplus = None if self.surplus is None else self.surplus * factor
        return replace(self, amplitude=self.amplitude * factor**power, surplus=surplus)


@dataclass(frozen=True, slots=True)
class Lost:
    """A noise that arrives, but whose variance no closed form gives; and why."""

    reason: str
    case: Case = Case.STRAIGHT


def added(left: Image, right: Image) -> Image:
    """Two images of one noise in a sum.

    Raises:
        Unpredictable: The draws do not line up.
    """
    same = left.units is right.units and left.amplitude.shape == right.amplitude.shape
    if not same or left.units is Units.MIXED or left.per != right.per:
        raise Unpredictable("it arrives by two ways that share draws")
    surplus = left.surplus if right.surplus is None else right.surplus
    if left.surplus is not None and right.surplus is not None:
        surplus = left.surplus + right.surplus
    both = left.mapped(left.amplitude + right.amplitude, surplus)
    case = Case.STRAIGHT if Case.STRAIGHT in {left.case, right.case} else left.case
    return replace(both, case=case, whole=False)


def broadcast(image: Image, shape: torch.Size) -> Image:
    """The image spread over a broadcast shape."""
    if image.amplitude.shape == shape:
        return image
    if image.units is not Units.MIXED and image.units is not Units.SAMPLE:
        raise Unpredictable("the noise is broadcast over other positions")
    surplus = None if image.surplus is None else image.surplus.expand(shape)
    return image.mapped(image.amplitude.expand(shape), surplus)
