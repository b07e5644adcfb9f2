"""Where BatchNorm (BN) and noise happen in a model, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from varshift_cli.instrument.noise_modules import NoiseModule, find_noise_modules
from varshift_cli.records import Skipped


class BatchNormKey(NamedTuple):
    """One call of one BN layer within a forward; ``call`` counts from 1."""

    name: str
    call: int


class NoiseKey(NamedTuple):
    """One call of one dropout within a forward; ``call`` counts from 1."""

    name: str
    call: int


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormSite:
    """A BN layer with running statistics.

    Attributes:
        name: Path of the module that owns the buffers (``""`` for a model that is one BN).
        kind: Class name of that module.
        running_mean: The buffer itself, shape (C,).
        running_var: The buffer itself, shape (C,).
        updates: ``num_batches_tracked``, where the layer has one.
    """

    name: str
    kind: str
    running_mean: Tensor
    running_var: Tensor
    updates: Tensor | None

    @property
    def num_features(self) -> int:
        """C."""
        return self.running_var.shape[0]


@dataclass(frozen=True, slots=True)
class BatchNormCatalogue:
    """All BN of a model: those with running statistics by name, and those without.

    ``noises`` are the modules whose noise is Python rather than an op.
    """

    sites: Mapping[str, BatchNormSite]
    untracked: tuple[Skipped, ...]
    noises: tuple[NoiseModule, ...] = ()

    def by_storage(self) -> dict[int, BatchNormSite]:
        """Sites by the address of their ``running_mean``: how a call is recognised."""
        return {site.running_mean.data_ptr(): site for site in self.sites.values()}


def find_batch_norms(model: nn.Module, noise: Sequence[type] = ()) -> BatchNormCatalogue:
    """List the BN layers of an eager, scripted or exported model by their buffers.

    Args:
        model: The model.
        noise: Module types that the user calls noise, beside those that are known.
    """
    kinds = {
        name: getattr(module, "original_name", type(module).__name__)
        for name, module in model.named_modules()
        if type(module) is not nn.Module  # what an exported program has in a module's place
    }
    buffers = dict(model.named_buffers())
    sites = {
        owner: BatchNormSite(
            owner,
            kinds.get(owner, "BatchNorm"),
            mean,
            var,
            buffers.get(_join(owner, "num_batches_tracked")),
        )
        for owner, mean, var in _buffer_pairs(buffers)
    }
    untracked = tuple(
        Skipped(name, "no running statistics: eval() normalises by the batch itself")
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is None
    )
    return BatchNormCatalogue(sites, untracked, find_noise_modules(model, noise))


def _buffer_pairs(buffers: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor, Tensor]]:
    for name, mean in buffers.items():
        owner, _, leaf = name.rpartition(".")
        var = buffers.get(_join(owner, "running_var"))
        if leaf == "running_mean" and var is not None:
            yield owner, mean, var


def _join(owner: str, leaf: str) -> str:
    return f"{owner}.{leaf}" if owner else leaf


def display_names(keys: Iterable[Any]) -> dict[Any, str]:
    """Names as reported: ``bn``, or ``bn#1`` and ``bn#2`` for a site called more than once."""
    listed = list(keys)
    repeated = {key.name for key in listed if key.call > 1}
    return {key: f"{key.name}#{key.call}" if key.name in repeated else key.name for key in listed}
