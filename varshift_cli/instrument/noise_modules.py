"""Noise that is Python, not an op: modules that draw under ``if self.training``.

timm's DropPath, torchvision's StochasticDepth and DropBlock, hand-written layers of the same
names, and types that the user registers. They are known by their class, without importing any
library. Their ``training`` flag, and no other, is switched, for the duration of a call.
"""

from __future__ import annotations

import inspect
import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from varshift_cli.instrument.draws import Source
from varshift_cli.instrument.noise import NoiseKind

_KINDS = {
    "droppath": "drop_path",
    "stochasticdepth": "stochastic_depth",
    "dropblock": "drop_block",
    "dropblock1d": "drop_block",
    "dropblock2d": "drop_block",
    "dropblock3d": "drop_block",
    "dropconnect": "drop_connect",
    "gaussiandropout": "gaussian_dropout",
    "gaussiannoise": "gaussian_noise",
    "shakedrop": "shake_drop",
    "shakeshake": "shake_shake",
    "uniformdropout": "uniform_dropout",
    "uout": "uout",
}
"""Class names, in lower case without underscores, that mean noise wherever they come from."""

_NOISY = ("dropout", *(name for name in _KINDS if name != "uout"))
"""Part of the name of a layer that is noise, if the layer holds no other layers."""

_P = ("drop_prob", "p", "drop_rate", "dropout", "dropout_p", "dropout_rate", "drop_p", "prob")
_KEEP = ("survival_prob", "survival_rate", "keep_prob")


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModule:
    """One noise module of a model: its path, what kind it is, its DROP probability if it has one.

    ``p`` is read at every call, since schedules change it.
    """

    name: str
    kind: NoiseKind
    module: nn.Module

    @property
    def p(self) -> float | None:
        """DROP probability as the module's attributes tell it."""
        return drop_probability(self.module)


def find_noise_modules(
    model: nn.Module, registered: Sequence[type] = ()
) -> tuple[NoiseModule, ...]:
    """All noise modules of a model.

    Args:
        model: Scripted parts are passed over: they take no hooks.
        registered: Types that the user calls noise.
    """
    return tuple(
        NoiseModule(name, NoiseKind(kind, per_channel=False, alpha=False), module)
        for name, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
        and (kind := _kind(module, registered)) is not None
    )


def matches(module: nn.Module, registered: type) -> bool:
    """Whether a module is of a type, also of the same type from the same file imported twice."""
    return isinstance(module, registered) or any(
        each.__qualname__ == registered.__qualname__
        and (each.__module__ == registered.__module__ or _same_file(each, registered))
        for each in type(module).__mro__
    )


def drop_probability(module: nn.Module) -> float | None:
    """The first attribute of a usual name that holds a probability."""
    for name in _P:
        p = _probability(getattr(module, name, None))
        if p is not None:
            return p
    for name in _KEEP:
        keep = _probability(getattr(module, name, None))
        if keep is not None:
            return 1.0 - keep
    attention = getattr(module, "attn_drop", None)
    return _probability(getattr(attention, "p", None))


def _probability(value: object) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0.0 <= value <= 1.0 else None


def _kind(module: nn.Module, registered: Iterable[type]) -> str | None:
    """What kind of noise a module is, or ``None``."""
    own = type(module)
    if any(matches(module, each) for each in registered):
        return _KINDS.get(_plain(own.__name__), own.__name__)
    if isinstance(module, nn.MultiheadAttention):
        return "attention_dropout" if module.dropout > 0.0 else None
    if isinstance(module, nn.RReLU) or _is_torchs_dropout(own):
        return None  # seen as ops
    name = _plain(own.__name__)
    if name in _KINDS:
        return _KINDS[name]
    if _has_fused_attention_dropout(module):
        return "attention_dropout"
    leaf = next(module.children(), None) is None
    return _snake(own.__name__) if leaf and any(part in name for part in _NOISY) else None


def _is_torchs_dropout(own: type) -> bool:
    """A dropout of torch's, or a subclass that leaves its forward alone."""
    return issubclass(own, _DropoutNd) and inspect.getmodule(own.forward) is sys.modules.get(
        _DropoutNd.__module__
    )


def _has_fused_attention_dropout(module: nn.Module) -> bool:
    """timm's Attention: it hands the p of its ``attn_drop`` to torch's fused attention."""
    dropout = getattr(module, "attn_drop", None)
    fused = getattr(module, "fused_attn", False)
    return bool(fused) and isinstance(dropout, nn.Dropout) and dropout.p > 0.0


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _same_file(one: type, other: type) -> bool:
    """Whether two classes were defined in the same source file."""
    files = {getattr(sys.modules.get(each.__module__), "__file__", None) for each in (one, other)}
    return len(files) == 1 and None not in files


def op_noise_modules(modules: Mapping[str, nn.Module]) -> Iterator[NoiseModule]:
    """Modules of torch's own whose noise is an op, to be switched like the others."""
    for name, module in modules.items():
        if isinstance(module, nn.RReLU):
            kind = "rrelu"
        elif isinstance(module, nn.RNNBase) and module.dropout > 0.0 and module.num_layers > 1:
            kind = "rnn_dropout"
        elif _is_torchs_dropout(type(module)):
            kind = _TORCHS.get(type(module).__name__, "dropout")
        else:
            continue
        yield NoiseModule(name, NoiseKind(kind, per_channel=False, alpha=False), module)


_TORCHS = {
    "Dropout1d": "feature_dropout",
    "Dropout2d": "feature_dropout",
    "Dropout3d": "feature_dropout",
    "AlphaDropout": "alpha_dropout",
    "FeatureAlphaDropout": "feature_alpha_dropout",
}


class NoiseSwitch:
    """Turns noise modules on for a call, and off again.

    In lockstep a call may be interrupted by the calls of other batches, so that each module counts
    how many are inside.
    """

    def __init__(self, modules: Iterable[NoiseModule]) -> None:
        self.modules: dict[str, NoiseModule] = {each.name: each for each in modules}
        self._inside: dict[str, int] = {}

    def add(self, noise: NoiseModule) -> None:
        """One more module to switch."""
        self.modules[noise.name] = noise

    def on(self, name: str) -> None:
        """One more call is inside."""
        self._inside[name] = self._inside.get(name, 0) + 1
        self.modules[name].module.training = True

    def off(self, name: str) -> None:
        """One call has left."""
        self._inside[name] -= 1
        if not self._inside[name]:
            self.modules[name].module.training = False


def python_generators_seeded(source: Source) -> Iterator[None]:
    """Seed ``random`` and numpy's global generator on ``next()``; put both back on the second."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    seed = source.seed()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global one is what users draw from
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
