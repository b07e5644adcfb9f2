"""The specimens: how each net is made, with which cause planted, and on what it is scanned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import nets
from tests.zoo.training import (
    USUAL,
    Recipe,
    digits,
    mixup,
    noisy,
    one_class_each,
    run_forward,
    train,
)
from varshift_cli import recalibrate


@dataclass(frozen=True)
class Specimen:
    """One net of the zoo."""

    name: str
    code: str | None
    """The planted cause; ``None`` for a healthy net."""
    make: Callable[[int], nn.Module]
    """Seed -> trained net, planted."""
    look: Callable[[Tensor], Tensor] = torch.clone
    """What is done to the images before the scan."""
    channels: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    """Of the scan."""

    def data(self) -> tuple[Tensor, Tensor]:
        """Images and labels of the scan."""
        x, y = digits(self.channels)
        return self.look(x), y


def _trained(build: Callable[[], nn.Module], recipe: Recipe = USUAL, channels: int = 1):
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return train(build(), seed, recipe, channels)

    return make


def _then(make: Callable[[int], nn.Module], plant: Callable[[nn.Module, int], Any]):
    def made(seed: int) -> nn.Module:
        model = make(seed)
        changed = plant(model, seed)
        return model if changed is None else changed

    return made


def norms(model: nn.Module) -> list[nn.Module]:
    return [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]


def reset(model: nn.Module, seed: int) -> None:
    for norm in norms(model):
        norm.reset_running_stats()


def few(model: nn.Module, seed: int) -> None:
    reset(model, seed)
    run_forward(model, seed, steps=6)


def broken(model: nn.Module, seed: int) -> None:
    norms(model)[1].running_var[seed % 5] = float("nan")


def repaired(model: nn.Module, seed: int) -> None:
    x, _ = digits()
    recalibrate(model, x.split(200))


def pruned(model: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] > 1:
                bound = layer.weight.abs().flatten().quantile(0.5)
                layer.weight[layer.weight.abs() < bound] = 0.0


def quantised(model: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                step = layer.weight.abs().max() / 3
                layer.weight.copy_((layer.weight / step).trunc() * step)


def outlier(model: nn.Module, seed: int) -> None:
    norms(model)[2].running_var[seed % 7] *= 5000.0


def permuted(model: nn.Module, seed: int) -> None:
    norm = norms(model)[2]
    order = torch.randperm(nets.WIDTH, generator=torch.Generator().manual_seed(seed))
    norm.running_mean.copy_(norm.running_mean[order])
    norm.running_var.copy_(norm.running_var[order])


def swapped(model: nn.Module, seed: int) -> None:
    norm = norms(model)[1]
    mean = norm.running_mean.clone()
    norm.running_mean.copy_(norm.running_var)
    norm.running_var.copy_(mean.abs())


def dead(model: nn.Module, seed: int) -> None:
    layers = [each for each in model.body if isinstance(each, nn.Conv2d)]
    with torch.no_grad():
        layers[1].weight[:3] = 0.0
    run_forward(model, seed, steps=150)


def averaged(build, *, ema: bool):
    """Weights averaged over the second half of training, at a large step; buffers of the last."""

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = build()
        kind = torch.optim.swa_utils.get_ema_multi_avg_fn(0.98) if ema else None
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=kind)

        def step(net: nn.Module, count: int) -> None:
            if count > 100 and (ema or count % 20 == 0):
                average.update_parameters(net)

        train(model, seed, Recipe(rate=0.5, epochs=8, each_step=step, anneal=False))
        for theirs, ours in zip(norms(average), norms(model), strict=True):
            theirs.running_mean.copy_(ours.running_mean)
            theirs.running_var.copy_(ours.running_var)
            theirs.num_batches_tracked.copy_(ours.num_batches_tracked)
        average.multi_avg_fn = None  # a closure, which cannot be kept in a file
        return average.eval()

    return make


def frozen(build):
    """Trained on inverted images first, then on these with BN in eval()."""

    def invert(x: Tensor, targets: Tensor, _generator: torch.Generator):
        return 1.0 - 0.5 * x, targets

    def hold(model: nn.Module) -> None:
        model.train()
        for norm in norms(model):
            norm.eval()

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = train(build(), seed, Recipe(change=invert, epochs=3))
        train(model, seed, Recipe(mode=hold, rate=0.002))
        hold(model)
        return model

    return make


def stale(build):
    """The buffers of an early epoch under the weights of a later one."""

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = train(build(), seed, Recipe(epochs=2, anneal=False))
        early = {name: value.clone() for name, value in model.named_buffers()}
        train(model, seed, Recipe(epochs=6, rate=0.1))
        for name, value in model.named_buffers():
            if "num_batches" not in name:
                value.copy_(early[name])
        return model

    return make


def half_frozen(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nets.Conv()
    for norm in norms(model):
        norm.weight.requires_grad_(False)
        norm.bias.requires_grad_(False)
    return train(model, seed)


def other_eps(seed: int) -> nn.Module:
    """Trained at eps 1e-3 with small weights, run at 1e-5."""
    torch.manual_seed(seed)
    model = nets.Conv(bn={"eps": 1e-3})
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 0.05
    train(model, seed, Recipe(rate=0.01))
    for norm in norms(model):
        norm.eps = 1e-5
    return model


_drop = partial(nn.Dropout, 0.5)
_drop2d = partial(nn.Dropout2d, 0.4)
_long = Recipe(epochs=20, rate=0.05, decay=1e-4)

PLANTED = (
    Specimen("dropout straight, conv", "VS101", _trained(lambda: nets.Conv(straight=_drop))),
    Specimen("dropout2d straight", "VS101", _trained(lambda: nets.Conv(straight=_drop2d))),
    Specimen("dropout straight, mlp", "VS101", _trained(lambda: nets.Mlp(straight=_drop))),
    Specimen("dropout before conv", "VS102", _trained(lambda: nets.Conv(through=_drop))),
    Specimen("dropout before linear", "VS102", _trained(lambda: nets.Mlp(through=_drop))),
    Specimen("dropout2d before conv", "VS102", _trained(lambda: nets.Conv(through=_drop2d))),
    Specimen("drop path", "VS103", _trained(lambda: nets.Residual(partial(nets.DropPath, 0.5)))),
    Specimen(
        "alpha dropout",
        "VS104",
        _trained(lambda: nets.Conv(through=partial(nn.AlphaDropout, 0.3))),
    ),
    Specimen("ignores eval", "VS120", _trained(nets.Forgetful)),
    Specimen("repaired", "VS130", _then(_trained(lambda: nets.Conv(straight=_drop)), repaired)),
    Specimen("never updated", "VS201", _then(_trained(nets.Conv), reset)),
    Specimen("nan", "VS202", _then(_trained(nets.Conv), broken)),
    Specimen("six updates, conv", "VS204", _then(_trained(nets.Conv), few)),
    Specimen("six updates, mlp", "VS204", _then(_trained(nets.Mlp), few)),
    Specimen(
        "momentum 0.002",
        "VS204",
        _trained(lambda: nets.Conv(bn={"momentum": 0.002})),
    ),
    Specimen("momentum 0.99, conv", "VS205", _trained(lambda: nets.Conv(bn={"momentum": 0.99}))),
    Specimen("momentum 0.99, mlp", "VS205", _trained(lambda: nets.Mlp(bn={"momentum": 0.99}))),
    Specimen("ema", "VS207", averaged(nets.Conv, ema=True)),
    Specimen("swa", "VS207", averaged(nets.Mlp, ema=False)),
    Specimen("pruned, conv", "VS208", _then(_trained(nets.Conv), pruned)),
    Specimen("pruned, mlp", "VS208", _then(_trained(nets.Mlp), pruned)),
    Specimen("quantised", "VS208", _then(_trained(nets.Conv), quantised)),
    Specimen("frozen", "VS209", frozen(nets.Conv)),
    Specimen("early buffers, conv", "VS210", stale(nets.Conv)),
    Specimen("early buffers, mlp", "VS210", stale(nets.Mlp)),
    Specimen("half-frozen", "VS211", half_frozen),
    Specimen("outlier channel", "VS212", _then(_trained(nets.Conv), outlier)),
    Specimen("batches of 2", "VS301", _trained(nets.Conv, Recipe(batch=2, epochs=2, rate=0.005))),
    Specimen("batches of 4", "VS301", _trained(nets.Conv, Recipe(batch=4, epochs=3, rate=0.01))),
    Specimen(
        "one class a batch, conv",
        "VS302",
        _trained(lambda: nets.Conv(channels=3), Recipe(order=one_class_each, rate=0.01), 3),
        channels=3,
    ),
    Specimen(
        "one class a batch, mlp",
        "VS302",
        _trained(nets.Mlp, Recipe(order=one_class_each, rate=0.01)),
    ),
    Specimen("shared by scales", "VS401", _trained(nets.Shared)),
    Specimen("siamese", "VS401", _trained(nets.Siamese)),
    Specimen(
        "no statistics in one layer",
        "VS402",
        _then(
            _trained(nets.Conv),
            lambda model, _seed: _forget(model),
        ),
    ),
    Specimen("dead channels", "VS403", _then(_trained(nets.Conv), dead)),
    Specimen("eps 1e-3 as 1e-5", "VS404", other_eps),
    Specimen("permuted", "VS405", _then(_trained(nets.Conv), permuted)),
    Specimen("mean and variance swapped", "VS405", _then(_trained(nets.Conv), swapped)),
    Specimen("0-255 for 0-1", "VS501", _trained(nets.Conv), look=lambda x: 255.0 * x),
    Specimen("inverted", "VS501", _trained(nets.Conv), look=lambda x: 1.0 - x),
    Specimen(
        "bgr for rgb",
        "VS501",
        _trained(lambda: nets.Conv(channels=3), channels=3),
        look=lambda x: x.flip(1),
        channels=3,
    ),
    Specimen("normalised twice", "VS501", _trained(nets.Mlp), look=lambda x: (x - 0.3) / 0.38),
    Specimen("mixup, conv", "VS502", _trained(nets.Conv, Recipe(change=mixup))),
    Specimen("mixup, mlp", "VS502", _trained(nets.Mlp, Recipe(change=mixup))),
    Specimen("noise in training", "VS502", _trained(nets.Conv, Recipe(change=noisy))),
)


def _forget(model: nn.Module) -> None:
    norm = norms(model)[2]
    norm.running_mean = norm.running_var = None
    norm.track_running_stats = False


HEALTHY = (
    Specimen("plain conv", None, _trained(nets.Conv)),
    Specimen("plain mlp", None, _trained(nets.Mlp)),
    Specimen("residual", None, _trained(nets.Residual)),
    Specimen("dropout behind all BN, conv", None, _trained(lambda: nets.Conv(head=_drop))),
    Specimen("dropout behind all BN, mlp", None, _trained(lambda: nets.Mlp(head=_drop))),
    Specimen("long-trained conv", None, _trained(nets.Conv, _long)),
    Specimen("long-trained mlp", None, _trained(nets.Mlp, _long)),
    Specimen("batches of 128", None, _trained(nets.Conv, Recipe(batch=128, epochs=12))),
    Specimen("without affine", None, _trained(lambda: nets.Conv(bn={"affine": False}))),
    Specimen("momentum 0.05", None, _trained(lambda: nets.Residual(bn={"momentum": 0.05}))),
    Specimen("group norm beside it", None, _trained(nets.HalfNormed)),
    Specimen("colour", None, _trained(lambda: nets.Conv(channels=3), channels=3), channels=3),
)
