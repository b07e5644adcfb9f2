"""What a model's modules and weights say by themselves, without a forward: read, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

_LEAST_WEIGHTS = 64
_LOOKED_AT = 20_000
"""Values of a weight that are looked at for repetitions."""


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """One weight of a convolution or linear layer."""

    name: str
    zeros: float
    """Share of its values that are exactly 0."""
    distinct: int
    """Different values among those looked at."""
    looked_at: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Of all BN and weights of a model."""

    momentum: Mapping[str, float | None] = field(default_factory=dict)
    """BN -> weight of a new batch; ``None`` averages all batches alike."""
    untrained_affine: tuple[str, ...] = ()
    """BN whose weight is exactly 1 and bias exactly 0 in every channel."""
    weights: tuple[WeightFacts, ...] = ()
    averaged_count: int | None = None
    """``n_averaged`` of torch's AveragedModel."""
    non_finite: tuple[str, ...] = ()
    """Parameters that hold NaN or infinity."""


def model_facts(model: nn.Module) -> ModelFacts:
    """Look at every module of a model."""
    momentum: dict[str, float | None] = {}
    untrained: list[str] = []
    weights: list[WeightFacts] = []
    for name, module in model.named_modules():
        if isinstance(getattr(module, "weight", None), UninitializedParameter):
            continue  # lazy, and never run
        if isinstance(module, _BatchNorm):
            value = module.momentum
            momentum[name] = value if isinstance(value, float | int) else None
            if _is_initial(module.weight, module.bias):
                untrained.append(name)
            continue
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1 and weight.numel() >= _LEAST_WEIGHTS:
            weights.append(_weight_facts(name, weight.detach()))
    count = dict(model.named_buffers()).get("n_averaged")
    return ModelFacts(
        momentum,
        tuple(untrained),
        tuple(weights),
        None if count is None else int(count),
        tuple(
            name
            for name, value in model.named_parameters()
            if not isinstance(value, UninitializedParameter)
            and value.is_floating_point()
            and not bool(value.detach().isfinite().all())
        ),
    )


def _is_initial(weight: object, bias: object) -> bool:
    return (
        isinstance(weight, Tensor)
        and isinstance(bias, Tensor)
        and bool((weight == 1.0).all())
        and bool((bias == 0.0).all())
    )


def _weight_facts(name: str, weight: Tensor) -> WeightFacts:
    flat = weight.flatten()
    some = flat[:: max(1, flat.numel() // _LOOKED_AT)]
    zeros = float((flat == 0.0).float().mean()) if flat.is_floating_point() else 0.0
    return WeightFacts(name, zeros, int(torch.unique(some).numel()), int(some.numel()))
