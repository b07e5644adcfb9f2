"""Thirty architectures: scanned, repaired, and no BatchNorm layer silently missing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.architectures import images, others
from varshift_cli import recalibrate, scan
from varshift_cli.instrument.snapshot import set_training


def pictures(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16) + 0.3


def graphs(count: int) -> list[dict[str, Tensor]]:
    """One graph of 30 nodes per batch."""
    return [
        {"features": torch.randn(30, 5), "edges": torch.randint(0, 30, (2, 90))}
        for _ in range(count // 8)
    ]


IMAGES: dict[str, Callable[[], nn.Module]] = {
    "ResNet basic": images.resnet_basic,
    "ResNet bottleneck": images.resnet_bottleneck,
    "ResNeXt": images.resnext,
    "SENet": images.senet,
    "PreResNet": images.preresnet,
    "WRN": images.wide_resnet,
    "DenseNet": images.densenet,
    "MobileNetV2": images.mobilenet_v2,
    "MobileNetV3": images.mobilenet_v3,
    "EfficientNet": images.efficientnet,
    "ShuffleNet": images.shufflenet,
    "GhostNet": images.ghostnet,
    "RegNet": images.regnet,
    "GoogLeNet": images.GoogLeNet,
    "VGG-BN": images.vgg_bn,
    "U-Net": images.UNet,
    "SimpleBaseline": images.pose_net,
    "ConvNeXt with BN": images.convnext,
    "MLP-Mixer with BN": images.MlpMixer,
    "FractalNet": images.fractalnet,
    "stochastic depth": images.StochasticDepthNet,
}
OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "PointNet": (others.PointNet, lambda n: torch.randn(n, 3, 20)),
    "EEGNet": (others.EEGNet, lambda n: torch.randn(n, 1, 6, 32)),
    "TCN": (others.tcn, lambda n: torch.randn(n, 2, 24)),
    "M5": (others.m5, lambda n: torch.randn(n, 1, 200)),
    "CRNN": (others.Crnn, lambda n: torch.randn(n, 1, 6, 10)),
    "graph": (others.GraphNet, graphs),
    "3d": (others.volumes, lambda n: torch.randn(n, 1, 6, 6, 6)),
    "two inputs": (
        others.TwoInputs,
        lambda n: {"image": torch.randn(n, 3, 8, 8), "numbers": torch.randn(n, 4)},
    ),
    "transformer with BN": (others.Attending, lambda n: torch.randn(n, 6, 8)),
}
EVERY = {**{name: (build, pictures) for name, build in IMAGES.items()}, **OTHERS}

SAMPLES = 48
BLOCKS = (images.Skipping,)
"""What a user would register by --noise."""
NOT_REACHED = {"GoogLeNet": ["aux.0.1"]}


def cut(drawn: Any, size: int) -> list[Any]:
    """Batches of a tensor, of a dict of tensors, or as they come."""
    if isinstance(drawn, Tensor):
        return list(drawn.split(size))
    if isinstance(drawn, dict):
        parts = {name: value.split(size) for name, value in drawn.items()}
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    return list(drawn)


def trained(model: nn.Module, batches: list[Any]) -> nn.Module:
    """Gather running statistics as training does, noise on, weights untouched."""
    model.train()
    with torch.no_grad():
        for _ in range(10):
            for batch in batches:
                model(**batch) if isinstance(batch, dict) else model(batch)
    return model.eval()


@pytest.mark.parametrize("name", EVERY)
def test_scanned_repaired_and_complete(name: str) -> None:
    """Every BN module is a layer or skipped; noise is found; the residual is below 1e-5."""
    build, draw = EVERY[name]
    torch.manual_seed(0)
    model = build()
    batches = cut(draw(SAMPLES), 16)
    trained(model, batches)
    noise = [kind for kind in BLOCKS if any(isinstance(m, kind) for m in model.modules())]
    report = scan(model, batches, noise=noise)

    modules = {name for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    layers = {layer.name.partition("#")[0] for layer in report.layers}
    skipped = {each.name for each in report.skipped}
    assert layers | skipped == modules
    assert not layers & skipped
    assert sorted(skipped) == NOT_REACHED.get(name, [])
    assert all(layer.shift is not None for layer in report.layers)

    assert report.dropouts
    assert any(dropout.reaches for dropout in report.dropouts)
    assert any(
        layer.factors.dropout is not None and abs(layer.factors.dropout - 1.0) > 0.02
        for layer in report.layers
    )
    told = {finding.code for finding in report.findings} & {"VS120", "VS121"}
    assert told == set()

    record = recalibrate(model, batches, noise=noise)
    assert record.residual < 1e-5
    assert {layer.name for layer in record.layers} == layers


def by_hand(model: nn.Module, batches: list[Any]) -> dict[str, float]:
    """Worst |E/R - 1| over channels of every BN module, by plain hooks in float64."""
    inputs: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _m, args, name=name: inputs.setdefault(name, []).append(
                args[0].double().movedim(1, -1).flatten(0, -2)
            )
        )
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    with torch.no_grad():
        for batch in batches:
            model(**batch) if isinstance(batch, dict) else model(batch)
    for handle in handles:
        handle.remove()
    worst = {}
    for name, values in inputs.items():
        bn = model.get_submodule(name)
        variance = torch.cat(values).var(0)
        ratio = (variance + bn.eps) / (bn.running_var.double() + bn.eps)
        worst[name] = float((ratio - 1.0).abs().max())
    return worst


@pytest.mark.parametrize("name", ["PreResNet", "EfficientNet", "CRNN", "graph", "two inputs"])
def test_repair_by_hand(name: str) -> None:
    """After the repair plain hooks find the same in the model itself, with no varshift about."""
    build, draw = EVERY[name]
    torch.manual_seed(0)
    model, batches = build(), cut(draw(SAMPLES), 16)
    trained(model, batches)
    before = by_hand(copy.deepcopy(model), batches)
    recalibrate(model, batches)
    assert max(before.values()) > 0.05
    assert max(by_hand(model, batches).values()) < 2e-5


TIMM = {
    "resnet18": {"drop_block_rate": 0.1},
    "resnet26": {},
    "resnext50_32x4d": {},
    "seresnet18": {},
    "densenet121": {},
    "mobilenetv2_050": {},
    "mobilenetv3_small_050": {},
    "efficientnet_lite0": {},
    "efficientnet_b0": {},
    "ghostnet_050": {},
    "regnetx_002": {},
    "regnety_002": {},
    "convnext_atto": {"norm_layer": "batchnorm2d"},
    "vgg11_bn": {},
    "inception_v3": {},
    "dla34": {},
    "hrnet_w18_small": {},
    "res2net50_14w_8s": {},
    "mnasnet_small": {},
    "repvgg_a0": {},
    "cspdarknet53": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    """The same from timm, where it is installed, with drop_rate and drop_path_rate set."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, drop_rate=0.2, drop_path_rate=0.2, **TIMM[name])
    except TypeError:
        model = timm.create_model(name, drop_rate=0.2, **TIMM[name])
    set_training(model, False)
    size = 96 if name == "inception_v3" else 64
    batches = list(torch.randn(24, 3, size, size).split(8))
    report = scan(model, batches)
    modules = {name for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    layers = {layer.name.partition("#")[0] for layer in report.layers}
    assert layers | {each.name for each in report.skipped} == modules
    assert not {finding.code for finding in report.findings} & {"VS120", "VS121"}
    assert recalibrate(model, batches).residual < 1e-5
