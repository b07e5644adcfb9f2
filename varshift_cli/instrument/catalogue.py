"""All BatchNorm (BN) of a model: those that can be measured, and why not the others.

Most are known from the model's buffers alone. A functional ``F.batch_norm`` with buffers of other
names shows itself only when it is called; it is then named by who owns its buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from varshift_cli.errors import NothingToMeasureError
from varshift_cli.instrument.calls import BatchNormCall
from varshift_cli.instrument.noise_modules import NoiseModule, find_noise_modules
from varshift_cli.instrument.sites import BatchNormSite
from varshift_cli.records import Skipped, dotted

_UNTRACKED = "no running statistics: eval() normalises by the batch itself"
_LAZY = "lazy, and never run: it has no statistics yet"
_INSTANCE = (
    "InstanceNorm: its running statistics average those of single samples, which is another "
    "quantity than what BatchNorm holds"
)


@dataclass(frozen=True, slots=True)
class BatchNormCatalogue:
    """All BN of a model, and the modules whose noise is Python rather than an op.

    Attributes:
        sites: BN with running statistics, by name; functional ones are added when they are met.
        untracked: BN that cannot be measured, and why; functional ones are added when met.
        noises: Noise modules.
        names: Names of all tensors that the model owns, by their address.
        saved: Names of all buffers.
        opaque: Names of sites that compute something else than BN; added when they are met.
        autograd: Whether the forward calls autograd, once that is known.
        elsewhere: Modules that ran in a thread of the model's own; added when they are met.
    """

    sites: dict[str, BatchNormSite]
    untracked: list[Skipped]
    noises: tuple[NoiseModule, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    saved: frozenset[str] = frozenset()
    opaque: set[str] = field(default_factory=set)
    autograd: list[bool] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)

    def by_storage(self) -> SitesByStorage:
        """Sites by the address of their ``running_mean``: how a call is recognised."""
        return SitesByStorage(self)

    def why_unreached(self, name: str) -> str:
        """Why no call of a site was seen."""
        if name in self.elsewhere:
            return "called in a thread of the model's own, where its calls cannot be seen"
        return "no batch reached it"


class SitesByStorage(dict[int, BatchNormSite]):
    """Sites by the address of their ``running_mean``; takes in functional BN as they are met."""

    def __init__(self, catalogue: BatchNormCatalogue) -> None:
        super().__init__((site.running_mean.data_ptr(), site) for site in catalogue.sites.values())
        self._catalogue = catalogue
        self._seen: set[str] = set()

    def named(self, name: str) -> BatchNormSite:
        """A site by its name."""
        return self._catalogue.sites[name]

    def is_opaque(self, call: BatchNormCall) -> bool:
        """Whether a module with running statistics computes something else than BN.

        Decided at its first call, by its output.
        """
        name = call.key.name
        if name not in self._seen:
            self._seen.add(name)
            if not call.is_batch_norm():
                self._catalogue.opaque.add(name)
        return name in self._catalogue.opaque

    def meet_untracked(self, path: str) -> None:
        """A call without running statistics."""
        known = {each.name for each in self._catalogue.untracked}
        if path not in known:
            self._catalogue.untracked.append(Skipped(path, _UNTRACKED))

    def meet(self, mean: Tensor, var: Tensor, path: str, order: Callable[[], int]) -> BatchNormSite:
        """The site of a call whose statistics are no known buffers.

        Args:
            mean: As passed in the call, shape (C,).
            var: As passed in the call, shape (C,).
            path: The module that called.
            order: Tells which such call of that module in this forward it is, from 1.
        """
        sites = self._catalogue.sites
        own = sites.get(path)
        if own is not None and _same_values(own.running_mean, mean):
            return own  # its own buffers, cast or copied on the way
        buffers = [self._catalogue.names.get(each.data_ptr()) for each in (mean, var)]
        if buffers[0] is None:
            name = f"{path}.batch_norm#{order()}".lstrip(".")
            if name not in sites:
                # Made anew at every call, perhaps: keep what the first one was given.
                with torch.inference_mode(False):
                    sites[name] = BatchNormSite(name, "batch_norm", mean.clone(), var.clone(), None)
            return sites[name]
        name = _functional_name(buffers[0], buffers[1], sites)
        saved = set(buffers) <= self._catalogue.saved
        named = (buffers[0], buffers[1]) if saved and buffers[1] is not None else None
        site = BatchNormSite(name, "batch_norm", mean, var, None, named)
        sites[name] = self[mean.data_ptr()] = site
        return site


def _is_frozen(module: nn.Module) -> bool:
    """Whether it went through ``torch.jit.freeze``, which leaves no flag."""
    return isinstance(module, torch.jit.ScriptModule) and not hasattr(module, "training")


def find_batch_norms(model: nn.Module, noise: Sequence[type] = ()) -> BatchNormCatalogue:
    """List the BN layers of an eager, scripted or exported model by their buffers.

    Every BN module ends up in ``sites`` or in ``untracked``.

    Args:
        model: The model.
        noise: Module types that the user calls noise, beside those that are known.

    Raises:
        NothingToMeasureError: It is frozen TorchScript.
    """
    if any(map(_is_frozen, model.modules())):
        raise NothingToMeasureError(
            "the model is frozen TorchScript: its BatchNorm is folded into the weights",
            hint="Give the module as it was before torch.jit.freeze.",
        )
    sites: dict[str, BatchNormSite] = {}
    skipped: list[Skipped] = []
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        pair = _statistics(module)
        if isinstance(pair, str):
            skipped.append(Skipped(name, pair))
        elif pair is not None:
            first = owners.setdefault(pair[0].data_ptr(), name)
            if first != name:
                skipped.append(Skipped(name, f"shares its running statistics with '{first}'"))
                continue
            sites[name] = _site(name, module, *pair)
    return BatchNormCatalogue(
        sites,
        skipped,
        find_noise_modules(model, noise),
        dict(_tensor_names(model)),
        frozenset(name for name, _ in model.named_buffers()),
    )


def _statistics(module: nn.Module) -> tuple[Tensor, Tensor] | str | None:
    """Running mean and variance; the reason why a BN has none; ``None`` for what is no BN."""
    buffers = dict(module.named_buffers(recurse=False, remove_duplicate=False))
    mean, var = buffers.get("running_mean"), buffers.get("running_var")
    kind = _kind(module)
    if isinstance(mean, UninitializedBuffer) or isinstance(var, UninitializedBuffer):
        return _LAZY
    if mean is None or var is None:
        return _UNTRACKED if isinstance(module, _BatchNorm) or _is_scripted_bn(module) else None
    return _INSTANCE if "InstanceNorm" in kind else (mean, var)


def _site(name: str, module: nn.Module, mean: Tensor, var: Tensor) -> BatchNormSite:
    kind = _kind(module)
    buffers = dict(module.named_buffers(recurse=False, remove_duplicate=False))
    return BatchNormSite(
        name,
        kind,
        mean,
        var,
        buffers.get("num_batches_tracked"),
        (dotted(name, "running_mean"), dotted(name, "running_var")),
        frozen="frozen" in kind.lower(),
    )


def _kind(module: nn.Module) -> str:
    """Class name of an eager or scripted module."""
    if type(module) is nn.Module:
        return "BatchNorm"  # what an exported program has in a module's place
    return str(getattr(module, "original_name", type(module).__name__))


def _is_scripted_bn(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) and _kind(module).startswith(
        ("BatchNorm", "SyncBatchNorm")
    )


def _tensor_names(model: nn.Module) -> Iterator[tuple[int, str]]:
    """Addresses and names of all that the model owns, plain tensor attributes first."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for attribute, value in vars(module).items():
            if isinstance(value, Tensor) and value.layout is torch.strided:
                yield value.data_ptr(), dotted(path, attribute)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        lazy = isinstance(tensor, (UninitializedBuffer, UninitializedParameter))
        if not lazy and tensor.layout is torch.strided:
            yield tensor.data_ptr(), name


def _functional_name(mean: str, var: str | None, taken: Mapping[str, object]) -> str:
    """A name from those of the buffers, else the mean's own.

    ``norm`` of norm.mean and norm.var, ``bn1`` of bn1_mean and bn1_var.
    """
    owner, _, leaf = mean.rpartition(".")
    other = "" if var is None else var.rpartition(".")[2]
    parts = leaf.split("_")
    common = [one for one, two in zip(parts, other.split("_"), strict=False) if one == two]
    stem = "_".join(part for part in common if part not in ("running", "moving"))
    name = dotted(owner, stem) if stem else owner
    return name if name and name not in taken else mean


def _same_values(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(
        torch.equal(one.double().nan_to_num(), other.double().nan_to_num().to(one.device))
    )
