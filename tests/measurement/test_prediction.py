"""The master identity against measurement, and the paper's formulas against Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import warmed_up
from varshift_cli import Prediction, Report, scan
from varshift_cli.nn import GaussianDropout, Uout


class DropPath(nn.Module):
    """Stochastic depth by sample, as timm has it."""

    def __init__(self, drop_prob: float, *, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole samples."""
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep if self.scale_by_keep else mask)


NOISES: dict[str, Callable[[], nn.Module]] = {
    "element": lambda: nn.Dropout(0.5),
    "channel": lambda: nn.Dropout2d(0.3),
    "gaussian": lambda: GaussianDropout.from_p(0.4),
    "uniform": lambda: Uout(0.9),
    "alpha": lambda: nn.AlphaDropout(0.4),
    "feature-alpha": lambda: nn.FeatureAlphaDropout(0.3),
    "path": lambda: DropPath(0.4),
    "path-unscaled": lambda: DropPath(0.7, scale_by_keep=False),
}

WEIGHTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[int], nn.Module]]] = {
    "straight": (nn.Identity, (6, 8, 8), nn.BatchNorm2d),
    "conv1d": (lambda: nn.Conv1d(6, 8, 3, padding=1), (6, 20), nn.BatchNorm1d),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3, padding=1), (6, 8, 8), nn.BatchNorm2d),
    "stride": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=2), (6, 9, 9), nn.BatchNorm2d),
    "groups": (lambda: nn.Conv2d(6, 8, 3, padding=1, groups=2), (6, 8, 8), nn.BatchNorm2d),
    "dilation": (lambda: nn.Conv2d(6, 8, 3, dilation=2), (6, 9, 9), nn.BatchNorm2d),
    "same": (lambda: nn.Conv2d(6, 8, 3, padding="same"), (6, 8, 8), nn.BatchNorm2d),
    "conv3d": (lambda: nn.Conv3d(6, 8, (1, 3, 3)), (6, 3, 6, 6), nn.BatchNorm3d),
}


class Net(nn.Module):
    """Stem, ReLU, noise, weights, BN: the noise reaches one BN, and nothing else is on."""

    def __init__(self, noise: nn.Module, weights: nn.Module, bn: nn.Module) -> None:
        super().__init__()
        self.noise, self.weights, self.bn = noise, weights, bn

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, *S) -> (N, C, *S')."""
        out: Tensor = self.bn(self.weights(self.noise(functional.relu(x))))
        return out


def smooth(shape: tuple[int, ...], samples: int = 512) -> Tensor:
    """Data with correlated channels and neighbours, and a mean that is not 0."""
    x = torch.randn(samples, *shape) + 0.7 * torch.randn(samples, *(1,) * len(shape)) + 0.3
    return (x + x.roll(1, -1) + x.roll(1, 1)) / 1.7


def only(report: Report) -> Prediction:
    """The one prediction of a one-BN net."""
    (layer,) = report.layers
    assert layer.prediction is not None
    (found,) = layer.prediction
    return found


@pytest.mark.parametrize("place", WEIGHTS)
@pytest.mark.parametrize("noise", NOISES)
def test_prediction_is_what_is_measured(noise: str, place: str) -> None:
    """Every noise, straight and through every kind of weights: within 4 errors, and close."""
    build, shape, norm = WEIGHTS[place]
    if noise == "channel" and len(shape) != 3:
        made: nn.Module = {2: nn.Dropout1d, 4: nn.Dropout3d}[len(shape)](0.3)
    else:
        made = NOISES[noise]()
    torch.manual_seed(2)
    x = smooth(shape)
    weights = build()
    model = warmed_up(Net(made, weights, norm(6 if place == "straight" else 8)), x)
    found = only(scan(model, list(x.split(64))))
    assert found.reason is None
    assert found.predicted is not None
    assert found.measured is not None
    assert found.error is not None
    assert abs(math.log(found.measured)) > 0.05
    assert abs(math.log(found.predicted / found.measured)) < 4 * found.error
    assert found.error < 0.25 * abs(math.log(found.measured)) + 0.01
    assert found.case == ("a" if place == "straight" else "b")


def test_the_intervals_cover_as_they_say() -> None:
    """Over noises, weights and seeds, predicted and measured agree at 95 % in at least 85 %."""
    agreed = []
    for seed in range(10):
        for noise in ("element", "uniform", "path"):
            for place in ("straight", "conv2d"):
                torch.manual_seed(seed)
                build, shape, norm = WEIGHTS[place]
                x = smooth(shape, 256)
                model = Net(NOISES[noise](), build(), norm(6 if place == "straight" else 8))
                agreed.append(only(scan(warmed_up(model, x), x, seed=seed)).agrees)
    assert sum(map(bool, agreed)) >= 0.85 * len(agreed)


def test_by_hand() -> None:
    """Linear behind element dropout: ln C/T from float64 sums over the same samples, to 1e-4."""
    torch.manual_seed(0)
    x = smooth((6,), 128)
    model = warmed_up(Net(nn.Dropout(0.25), nn.Linear(6, 5), nn.BatchNorm1d(5)), x)
    found = only(scan(model, x))
    z, w = functional.relu(x).double(), model.weights.weight.detach().double()
    plain, extra = (z @ w.t()).var(0), (0.25 / 0.75) * (z.square() @ w.square().t()).mean(0)
    expected = float((plain / (plain + extra)).log().mean().exp())
    assert found.predicted == pytest.approx(expected, rel=1e-4)


def mixture(n: int, d: int, c: float, v: float, rho: float) -> Tensor:
    """Gaussian inputs of mean c, variance v and correlation rho, all alike."""
    shared, own = torch.randn(n, 1), torch.randn(n, d)
    return c + math.sqrt(v) * (math.sqrt(rho) * shared + math.sqrt(1 - rho) * own)


class Plain(nn.Module):
    """Noise, weights, BN, without anything that would change the inputs."""

    def __init__(self, noise: nn.Module, weights: nn.Module, features: int) -> None:
        super().__init__()
        self.noise, self.weights, self.bn = noise, weights, nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) -> (N, features)."""
        out: Tensor = self.bn(self.weights(self.noise(x)))
        return out


@pytest.mark.parametrize("p", [0.2, 0.3, 0.5, 0.7])
@pytest.mark.parametrize(("c", "rho"), [(0.0, 0.0), (0.4, 0.3), (1.0, 0.05)])
def test_the_papers_case_b_on_data_that_meet_its_assumptions(
    p: float, c: float, rho: float
) -> None:
    """Eq. 14 with the c, v, rho, cos2, d that are reported = prediction = Monte Carlo."""
    torch.manual_seed(4)
    d, v, n = 40, 1.5, 4096
    x = mixture(n, d, c, v, rho)
    weights = nn.Linear(d, 1, bias=False)
    weights.weight.data = torch.randn(1, d) + 0.25
    found = only(scan(warmed_up(Plain(nn.Dropout(p), weights, 1), x), [x], samples=None))
    w = weights.weight.detach().double().flatten()
    cos2 = float(w.sum() ** 2 / (d * (w @ w)))
    assert found.d == d
    assert found.cos2 == pytest.approx(cos2, rel=1e-6)
    assert found.c == pytest.approx(c, abs=0.06)
    assert found.v == pytest.approx(v, rel=0.05)
    assert found.rho == pytest.approx(rho, abs=0.03)
    keep, spread = 1 - p, v * rho * (d * cos2 - 1)
    eq14 = (v + spread) / ((c * c + v) / keep - c * c + spread)
    assert found.delta == pytest.approx(eq14, abs=0.03)
    assert found.predicted == pytest.approx(found.delta, abs=0.02)
    masks = torch.rand(n, d, dtype=torch.float64) >= p
    monte_carlo = float((x.double() @ w).var() / ((x * masks / keep).double() @ w).var())
    assert monte_carlo == pytest.approx(eq14, abs=0.06)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("c", [0.0, 0.399, 1.5])
def test_the_papers_case_a_on_data_that_meet_its_assumptions(p: float, c: float) -> None:
    """Eq. 7-8: v / ((c^2 + v)/keep - c^2), p itself at c = 0."""
    torch.manual_seed(4)
    x = mixture(2048, 30, c, 0.341, 0.0)
    found = only(scan(warmed_up(Plain(nn.Dropout(p), nn.Identity(), 30), x), [x], samples=None))
    eq8 = 0.341 / ((c * c + 0.341) / (1 - p) - c * c)
    assert found.c == pytest.approx(c, abs=0.03)
    assert found.v == pytest.approx(0.341, rel=0.03)
    assert found.delta == pytest.approx(eq8, rel=0.03)
    assert found.predicted == pytest.approx(eq8, rel=0.03)
    if c == 0.0:
        assert found.predicted == pytest.approx(1 - p, rel=0.02)


class Trained(nn.Module):
    """A small residual net with four kinds of noise, trained below."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.drop1 = nn.Dropout(0.4)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.drop2 = nn.Dropout2d(0.3)
        self.conv3 = nn.Conv2d(8, 12, 3, stride=2)
        self.bn3 = nn.BatchNorm2d(12)
        self.drop3 = Uout(0.8)
        self.fc = nn.Linear(12, 16)
        self.bn4 = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> (N, 4)."""
        x = functional.relu(self.bn1(self.stem(x)))
        x = functional.relu(self.bn2(self.conv2(self.drop1(x))))
        x = functional.relu(self.bn3(self.conv3(self.drop2(x))))
        x = self.drop3(x.mean((2, 3)))
        logits: Tensor = self.head(functional.relu(self.bn4(self.fc(x))))
        return logits


def test_trained_weights() -> None:
    """After 60 steps of training, each dropout's effect on its own BN is still predicted."""
    torch.manual_seed(0)
    x = smooth((1, 8, 8), 512)
    y = (x[:, 0, :4].mean((1, 2)) > x.mean()).long() + 2 * (x[:, 0, :, :4].mean((1, 2)) > x.mean())
    model = Trained()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(60):
        rows = torch.arange(64) + 64 * (step % 8)
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    report = scan(model.eval(), list(x.split(64)))
    found = {layer.name: layer.prediction for layer in report.layers}
    assert found["bn1"] is None
    for name in ("bn2", "bn3", "bn4"):
        (prediction,) = found[name] or ()
        assert prediction.predicted is not None
        assert prediction.measured is not None
        assert prediction.error is not None
        assert abs(math.log(prediction.predicted / prediction.measured)) < 4 * prediction.error
        assert prediction.d is not None


def nothing(model: nn.Module, x: Tensor) -> str | None:
    """Why a one-BN net has no prediction."""
    found = only(scan(warmed_up(model, x), list(x.split(64))))
    assert found.predicted is None
    assert found.agrees is None
    return found.reason


def test_where_no_closed_form_leads_there_is_a_reason() -> None:
    """GELU, max pooling of element noise, weights behind weights, DropBlock: unknown, never 0."""
    torch.manual_seed(0)
    x = smooth((6, 8, 8), 256)
    conv = nn.Conv2d(6, 6, 3, padding=1)
    bn = nn.BatchNorm2d(6)
    assert "gelu" in (nothing(Net(nn.Dropout(0.5), nn.GELU(), bn), x) or "")
    pooled = nothing(Net(nn.Dropout(0.5), nn.MaxPool2d(2), nn.BatchNorm2d(6)), x)
    assert "max_pool2d" in (pooled or "")
    twice = nn.Sequential(conv, nn.Conv2d(6, 6, 1))
    assert "weights" in (nothing(Net(nn.Dropout(0.5), twice, nn.BatchNorm2d(6)), x) or "")


@pytest.mark.parametrize(
    ("noise", "between"),
    [
        ("channel", nn.MaxPool2d(2)),
        ("channel", nn.AvgPool2d(2)),
        ("element", nn.AvgPool2d(2)),
        ("element", nn.AdaptiveAvgPool2d(4)),
        ("channel", nn.Sequential(nn.Flatten(), nn.Unflatten(1, (6, 64)))),
        ("path", nn.Sequential(nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 1))),
        ("element", nn.LeakyReLU(0.2)),
        ("element", nn.Dropout(0.0)),
    ],
)
def test_what_may_lie_between(noise: str, between: nn.Module) -> None:
    """Pooling, reshaping, positively homogeneous functions; weights twice for stochastic depth."""
    torch.manual_seed(3)
    x = smooth((6, 8, 8), 256)
    if isinstance(between, nn.Sequential) and isinstance(between[0], nn.Flatten):
        bn: nn.Module = nn.BatchNorm1d(6)
    else:
        bn = nn.BatchNorm2d(6)
    found = only(scan(warmed_up(Net(NOISES[noise](), between, bn), x), list(x.split(64))))
    assert found.reason is None
    assert found.predicted is not None
    assert found.measured is not None
    assert found.error is not None
    assert abs(math.log(found.predicted / found.measured)) < 4 * found.error


def test_channel_noise_flattened_into_a_linear_layer() -> None:
    """Dropout2d, flatten, Linear: features of a channel are dropped together."""
    torch.manual_seed(3)
    x = smooth((6, 4, 4), 512)
    weights = nn.Sequential(nn.Flatten(), nn.Linear(96, 20))
    model = warmed_up(Net(nn.Dropout2d(0.5), weights, nn.BatchNorm1d(20)), x)
    found = only(scan(model, list(x.split(64))))
    assert found.predicted is not None
    assert found.measured is not None
    assert found.error is not None
    assert abs(math.log(found.predicted / found.measured)) < 4 * found.error


def test_dropout_in_place() -> None:
    """nn.Dropout(inplace=True) and what is done to its input afterwards in place."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True)
            self.drop, self.bn = nn.Dropout(0.5, inplace=True), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.conv(x))
            self.drop(x)
            x += 1
            out: Tensor = self.bn(x)
            return out

    torch.manual_seed(0)
    x = smooth((6, 8, 8), 256)
    found = only(scan(warmed_up(InPlace(), x), list(x.split(64))))
    assert found.predicted is not None
    assert found.measured is not None
    assert found.error is not None
    assert abs(math.log(found.predicted / found.measured)) < 4 * found.error


def test_noise_inside_an_rnn_is_named_and_not_predicted() -> None:
    """The LSTM's own dropout reaches bn: measured, with the reason why it is not predicted."""

    class Rnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(6, 8, 2, dropout=0.5, batch_first=True)
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(self.rnn(x)[0].transpose(1, 2))
            return out

    torch.manual_seed(0)
    x = torch.randn(256, 5, 6)
    found = only(scan(warmed_up(Rnn(), x), list(x.split(64))))
    assert (found.name, found.predicted, found.agrees) == ("rnn", None, None)
    assert found.reason == "no closed form for rnn_dropout"
    assert found.measured is not None
