"""Checkpoint files with BatchNorm buffers of our choice."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from varshift_cli.static import lint_checkpoint

CHANNELS = 6


def healthy(layers: int = 3, updates: int = 500, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of conv and BN whose buffers nothing is wrong with."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(CHANNELS, generator=generator)

    state: dict[str, Tensor] = {}
    for index in range(layers):
        state[f"body.{index}.conv.weight"] = torch.randn(4, 4, generator=generator)
        state[f"body.{index}.bn.weight"] = uniform(0.5, 1.5)
        state[f"body.{index}.bn.bias"] = uniform(-0.5, 0.5)
        state[f"body.{index}.bn.running_mean"] = uniform(-1.0, 1.0)
        state[f"body.{index}.bn.running_var"] = uniform(0.2, 3.0)
        state[f"body.{index}.bn.num_batches_tracked"] = torch.tensor(updates)
    return state


def changed(layer: int, leaf: str, value: object, **more: object) -> dict[str, Tensor]:
    """The healthy state dict with one tensor replaced."""
    state = healthy(**more)
    name = f"body.{layer}.bn.{leaf}"
    state[name] = torch.as_tensor(np.asarray(value)).to(state[name].dtype)
    return state


def linted(state, folder, *, name: str = "model.safetensors", key: str | None = None):
    """Saved, and judged by the file alone."""
    path = folder / name
    if name.endswith(".safetensors"):
        save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return lint_checkpoint(str(path), key)


def told(report) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Code -> level and layers."""
    return {each.code: (str(each.level), each.layers) for each in report.findings}
