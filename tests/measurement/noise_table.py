"""Every kind of noise, straight into BN, through Linear, and through Conv, against theory.

    python -m tests.measurement.noise_table

Prints the measured *dropout* factor C/T, its interval, and the closed form. The closed form is the
master identity for multiplicative noise m of mean 1, independent of x,

    Var_T(sum_i w_i m_i x_i) = Var_C + sum_ij w_i w_j Cov(m_i, m_j) E[x_i x_j],

computed in float64 from the very inputs that were scanned; convolutions are written as sums over
unfolded patches. It shares no line with varshift.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import noisy
from tests.nets import batches_of
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement import layer_record, measure
from varshift_cli.records import Case, LayerRecord, SilentProgress

Q = 0.3
TAU2 = Q / (1.0 - Q)
ALPHA = -1.7580993408473766
CHANNELS, SIDE, KERNEL = 4, 6, 3
SHAPE = (CHANNELS, SIDE, SIDE)

Covariance = Callable[[Tensor], Tensor]
"""From the (channel, row, column) of each unit, shape (U, 3), to Cov(m_i, m_j), shape (U, U)."""


def element(tau2: float = TAU2) -> Covariance:
    return lambda places: tau2 * torch.eye(len(places), dtype=torch.float64)


def by_channel(places: Tensor) -> Tensor:
    return TAU2 * (places[:, None, 0] == places[None, :, 0]).double()


def by_sample(places: Tensor) -> Tensor:
    return torch.full((len(places), len(places)), TAU2, dtype=torch.float64)


def by_block(places: Tensor, size: int = 3) -> Tensor:
    """Joint keep at a lag is (1 - gamma) ** (2 size^2 - overlap of the two squares)."""
    keep = 1.0 - Q
    gamma = 1.0 - keep ** (1.0 / size**2)
    lag = (places[:, None] - places[None, :]).abs()
    overlap = (size - lag[..., 1]).clamp(min=0) * (size - lag[..., 2]).clamp(min=0)
    joint = (1.0 - gamma) ** (2 * size**2 - overlap).double()
    return (joint / keep**2 - 1.0) * (lag[..., 0] == 0)


@dataclass(frozen=True)
class Kind:
    """A noise, and how theory sees it.

    ``signal`` is what the noise multiplies (the input itself, mostly); ``scale`` multiplies all of
    what training sees (alpha dropout); ``additive`` is the variance of what is added per unit.
    """

    name: str
    module: Callable[[], nn.Module]
    covariance: Covariance
    signal: Callable[[Tensor], Tensor] = lambda x: x
    scale: float = 1.0
    additive: float = 0.0


_ALPHA_SCALE = ((1.0 + ALPHA**2 * Q) * (1.0 - Q)) ** -0.5 * (1.0 - Q)

KINDS = {
    "Dropout": Kind("dropout", lambda: nn.Dropout(Q), element()),
    "Dropout in place": Kind("dropout", lambda: nn.Dropout(Q, inplace=True), element()),
    "Dropout2d": Kind("feature_dropout", lambda: nn.Dropout2d(Q), by_channel),
    "AlphaDropout": Kind(
        "alpha_dropout",
        lambda: nn.AlphaDropout(Q),
        element(),
        lambda x: x - ALPHA,
        _ALPHA_SCALE,
    ),
    "FeatureAlphaDropout": Kind(
        "feature_alpha_dropout",
        lambda: nn.FeatureAlphaDropout(Q),
        by_channel,
        lambda x: x - ALPHA,
        _ALPHA_SCALE,
    ),
    "RReLU": Kind("rrelu", lambda: nn.RReLU(0.0, 1.0), element(1 / 12), lambda x: x.clamp(max=0)),
    "DropPath": Kind("drop_path", lambda: noisy.DropPath(Q), by_sample),
    "StochasticDepth row": Kind("stochastic_depth", lambda: noisy.StochasticDepth(Q), by_sample),
    "DropBlock": Kind("drop_block", lambda: noisy.DropBlock2d(Q), by_block),
    "GaussianDropout": Kind("gaussian_dropout", lambda: noisy.GaussianDropout(Q), element()),
    "Uout": Kind("uout", lambda: noisy.Uout(0.9), element(0.27)),
    "GaussianNoise": Kind(
        "gaussian_noise", lambda: noisy.GaussianNoise(0.7), element(0.0), additive=0.49
    ),
    "user type": Kind("MyScaledDropout", lambda: noisy.MyScaledDropout(Q), element()),
}
WAYS = ("straight", "linear", "conv")


class Net(nn.Module):
    """A noise, then BN: straight, through Linear, or through Conv."""

    def __init__(self, noise: nn.Module, way: str) -> None:
        super().__init__()
        self.noise, self.way = noise, way
        if way == "linear":
            self.weights: nn.Module = nn.Linear(math.prod(SHAPE), 12)
            self.bn: nn.Module = nn.BatchNorm1d(12)
        elif way == "conv":
            # A positive lean, so that masks shared by neighbours do not average out.
            self.weights = nn.Conv2d(CHANNELS, 12, KERNEL)
            self.bn = nn.BatchNorm2d(12)
        else:
            self.weights, self.bn = nn.Identity(), nn.BatchNorm2d(CHANNELS)
        for weight in self.weights.parameters():
            weight.data += 0.03

    def forward(self, x: Tensor) -> Tensor:
        x = self.noise(x.clone())
        out: Tensor = self.bn(self.weights(x.flatten(1) if self.way == "linear" else x))
        return out


def patches(x: Tensor, way: str) -> tuple[Tensor, Tensor]:
    """What one output value sums over: values (samples, U), and their places (U, 3)."""
    channel, row, column = torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")
    places = torch.stack([channel, row, column], dim=-1).reshape(-1, 3)
    if way == "linear":
        return x.flatten(1), places
    columns = functional.unfold(x, KERNEL)
    inside = (places[:, 1] < KERNEL) & (places[:, 2] < KERNEL)
    return columns.movedim(1, 2).flatten(0, 1), places[inside]


def closed_form(net: Net, kind: Kind, x: Tensor) -> float:
    """Mean over channels of ln((C + eps)/(T + eps))."""
    x = x.double()
    resting = net.eval().noise.double()(x.clone())
    signal = kind.signal(x)
    if net.way == "straight":
        clean = resting.movedim(1, -1).flatten(0, -2).var(0)
        spread = kind.covariance(torch.zeros(1, 3))[0, 0]
        extra = spread * signal.square().mean((0, 2, 3)) + kind.additive
    else:
        weight = net.weights.weight.detach().double().flatten(1)
        values, places = patches(resting, net.way)
        clean = (values @ weight.T).var(0)
        noised, _ = patches(signal, net.way)
        second = noised.T @ noised / len(noised)
        mixed = kind.covariance(places) * second + kind.additive * torch.eye(len(places))
        extra = torch.einsum("oi,ij,oj->o", weight, mixed, weight)
    train = kind.scale**2 * (clean + extra)
    return float(((clean + 1e-5) / (train + 1e-5)).log().mean())


def scanned(kind: Kind, way: str, samples: int = 1500) -> tuple[LayerRecord, str, Case, float]:
    """The record of the BN, the kind and way by which the noise reaches it, and the closed form."""
    torch.manual_seed(len(kind.name) + len(way))
    x = torch.randn(samples, CHANNELS, 1, 1) * 0.5 + torch.randn(samples, *SHAPE) + 0.4
    net = Net(kind.module(), way).eval()
    catalogue = find_batch_norms(net, [noisy.MyScaledDropout])
    measured = measure(net, catalogue, batches_of(x, 250), seed=1, progress=SilentProgress())
    (layer,) = measured.layers
    (visit,) = measured.wiring.noises
    ((_, case),) = measured.wiring.batch_norms[0].dropouts
    return layer_record(layer, "bn", 0), visit.kind, case, closed_form(net, kind, x)


def main() -> None:
    """Print the table."""
    print(f"{'noise':20} {'way':9} {'measured':>8}  {'95 %':15} {'theory':>7}")
    for name, kind in KINDS.items():
        for way in WAYS:
            record, _, _, theory = scanned(kind, way)
            interval = record.factor_intervals.dropout
            assert interval is not None
            inside = interval.low <= math.exp(theory) <= interval.high
            print(
                f"{name:20} {way:9} {record.factors.dropout:8.4f}  "
                f"{interval.low:.4f}-{interval.high:.4f}   {math.exp(theory):7.4f}"
                f"{'' if inside else '  outside'}"
            )


if __name__ == "__main__":
    main()
