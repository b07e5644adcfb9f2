"""Random ops whose numbers belong to samples: what noise written in Python draws from.

A noise module calls ``torch.rand``, ``bernoulli_`` and the like. Inside such a module these ops
are answered here, by a function of (seed, sample, call, position), as in ``noise``: a mask of
shape (N, 1, 1, 1) then drops the same samples at any batch size. A shape whose first dimension is
no multiple of the samples (one number for a whole batch) is bound to the batch. Ops that are not
known here run as they are, seeded from the batch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from varshift_cli.instrument.noise import fold, random_bits, site_key

aten = torch.ops.aten


class Source:
    """Where the draws of one noise call come from.

    Args:
        seed: Of the scan.
        order: Of the noise call in its forward.
        samples: One key per sample, shape (B,), int64.
        axis: The dimension of what is drawn that counts samples.
    """

    def __init__(self, seed: int, order: int, samples: Tensor, axis: int = 0) -> None:
        self._seed, self._order = seed, order
        self.samples = samples
        self._axis = axis
        self._drawn = 0

    def along(self, axis: int) -> Source:
        """The same source, for draws whose samples lie along another dimension."""
        return Source(self._seed, self._order, self.samples, axis)

    def next_site(self) -> int:
        """A key of its own for each op of the call."""
        self._drawn += 1
        return site_key(self._seed, f"draw {self._drawn}", self._order)

    def seed(self) -> int:
        """For generators that know nothing of samples: from the site and the whole batch."""
        return (self.next_site() << 31) ^ (int(fold(self.samples).item()) >> 1)

    def bits(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Uniform int32 of a shape."""
        axis = self._axis if len(shape) > self._axis else 0
        front = [shape[axis], *shape[:axis], *shape[axis + 1 :]] if shape else []
        bits = random_bits(tuple(front), self.samples.to(device), self.next_site())
        return bits.movedim(0, axis) if shape else bits.view(())

    def uniform(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> Tensor:
        """Uniform in [0, 1), never rounded up to 1."""
        digits = _DIGITS.get(dtype, 24)
        bits = self.bits(shape, device)
        high = (bits >> (32 - digits)).bitwise_and_((1 << digits) - 1)
        return high.to(dtype).mul_(2.0**-digits)

    def normal(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Standard normal, float64, by the inverse of its distribution function."""
        high = (self.bits(shape, device) >> 8).bitwise_and_(0xFFFFFF)
        return math.sqrt(2.0) * torch.erfinv((high.double() + 0.5) * 2.0**-23 - 1.0)


_DIGITS = {torch.float16: 11, torch.bfloat16: 8}


@contextmanager
def seeded(source: Source) -> Iterator[None]:
    """Seed every global generator from the source; all are put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    seed = source.seed()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - the global one is what users draw from
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def draw(
    op: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], source: Source
) -> Any:
    """Answer a random op by numbers from the source."""
    answer = RANDOM_OPS.get(op)
    if answer is not None:
        return answer(named_arguments(op, args, kwargs), source)
    with seeded(source):
        return op(*args, **kwargs)


def is_random(op: Any) -> bool:
    """Whether an op draws random numbers, or may."""
    return torch.Tag.nondeterministic_seeded in getattr(op, "tags", ())


class KeyedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers every random op inside by the source: for ops that are made of others."""

    def __init__(self, source: Source) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Route one op."""
        if is_random(func):
            return draw(func, args, kwargs or {}, self._source)
        return func(*args, **(kwargs or {}))


def named_arguments(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, left-out ones by their defaults."""
    parameters = op._schema.arguments
    named = {each.name: each.default_value for each in parameters if each.has_default_value()}
    named.update(zip((each.name for each in parameters), args, strict=False))
    named.update(kwargs)
    return named


Answer = Callable[[dict[str, Any], Source], Any]


def _place(given: Mapping[str, Any]) -> tuple[torch.dtype, torch.device]:
    """dtype and device of a new tensor."""
    like = given.get("self")
    dtype, device = given.get("dtype"), given.get("device")
    if isinstance(like, Tensor):
        return dtype or like.dtype, torch.device(device) if device else like.device
    return (
        dtype or torch.get_default_dtype(),
        torch.device(device) if device else torch.get_default_device(),
    )


def _shape(given: Mapping[str, Any]) -> list[int]:
    return list(given["size"]) if "size" in given else list(given["self"].shape)


def _rand(given: dict[str, Any], source: Source) -> Tensor:
    return source.uniform(_shape(given), *_place(given))


def _randn(given: dict[str, Any], source: Source) -> Tensor:
    dtype, device = _place(given)
    drawn = source.normal(_shape(given), device)
    return drawn.to(dtype)


def _randint(given: dict[str, Any], source: Source) -> Tensor:
    low, high = given.get("low", 0), given["high"]
    dtype, device = _place(given)
    if given.get("dtype") is None and "self" not in given:
        dtype = torch.int64
    drawn = source.uniform(_shape(given), torch.float64, device)
    return drawn.mul_(high - low).floor_().add_(low).to(dtype)


def _uniform_(given: dict[str, Any], source: Source) -> Tensor:
    x: Tensor = given["self"]
    low, high = given.get("from", 0.0), given.get("to", 1.0)
    x.copy_(source.uniform(x.shape, x.dtype, x.device).mul_(high - low).add_(low))
    return x


def _normal_(given: dict[str, Any], source: Source) -> Tensor:
    x: Tensor = given["self"]
    x.copy_(source.normal(x.shape, x.device) * given["std"] + given["mean"])
    return x


def _normal(given: dict[str, Any], source: Source) -> Tensor:
    mean, std = given["mean"], given["std"]
    likes = [each for each in (mean, std) if isinstance(each, Tensor)]
    if not likes:
        dtype, device = _place(given)
        drawn = source.normal(_shape(given), device)
    else:
        dtype = likes[0].dtype
        shape = (likes[0] + likes[-1]).shape
        drawn = source.normal(shape, likes[0].device)
    scaled: Tensor = drawn * std + mean
    return scaled.to(dtype)


def _bernoulli_(given: dict[str, Any], source: Source) -> Tensor:
    x: Tensor = given["self"]
    x.copy_(source.uniform(x.shape, torch.float32, x.device) < given["p"])
    return x


def _bernoulli(given: dict[str, Any], source: Source) -> Tensor:
    x: Tensor = given["self"]
    drawn: Tensor = source.uniform(x.shape, torch.float32, x.device) < given.get("p", x)
    return drawn.to(x.dtype)


def _native_dropout(given: dict[str, Any], source: Source) -> tuple[Tensor, Tensor]:
    x, p = given["input"], float(given["p"])
    if not given["train"] or p == 0.0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    # As bernoulli_ draws, of which dropout is made on other devices: one mask on all of them.
    keep = source.uniform(x.shape, torch.float32, x.device) < 1.0 - p
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    return x * (keep.to(x.dtype) * scale), keep


RANDOM_OPS: dict[Any, Answer] = {
    aten.rand.default: _rand,
    aten.rand.generator: _rand,
    aten.rand_like.default: _rand,
    aten.randn.default: _randn,
    aten.randn.generator: _randn,
    aten.randn_like.default: _randn,
    aten.randint.default: _randint,
    aten.randint.low: _randint,
    aten.randint_like.default: _randint,
    aten.randint_like.low_dtype: _randint,
    aten.uniform_.default: _uniform_,
    aten.normal_.default: _normal_,
    aten.normal.float_float: _normal,
    aten.normal.Tensor_float: _normal,
    aten.normal.float_Tensor: _normal,
    aten.normal.Tensor_Tensor: _normal,
    aten.bernoulli_.float: _bernoulli_,
    aten.bernoulli_.Tensor: _bernoulli_,
    aten.bernoulli.default: _bernoulli,
    aten.bernoulli.p: _bernoulli,
    aten.native_dropout.default: _native_dropout,
}
"""Random ops with an answer of their own."""


def _overloads(*names: str) -> frozenset[Any]:
    """Every overload of the named ops that returns what it draws."""
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return frozenset(
        getattr(packet, overload)
        for packet in packets
        for overload in packet.overloads()
        if not overload.endswith("out")
    )


SEEDED_OPS = _overloads(
    "randperm", "multinomial", "exponential_", "geometric_", "log_normal_", "cauchy_", "poisson",
    "binomial", "random_", "_standard_gamma", "_sample_dirichlet", "rand", "rand_like", "randn",
    "randn_like", "randint", "randint_like", "normal", "bernoulli",
) - RANDOM_OPS.keys()  # fmt: skip
"""Random ops that run as they are, seeded."""
