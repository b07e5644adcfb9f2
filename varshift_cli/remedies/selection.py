"""Which BatchNorm layers a repair may write, and why not the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.instrument.snapshot import preserved
from varshift_cli.records import Skipped


@dataclass(frozen=True, slots=True)
class Selection:
    """Names of BN modules to write, and those left alone with the reason."""

    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def frozen_layers(model: nn.Module, catalogue: BatchNormCatalogue) -> frozenset[str]:
    """BN that stay in eval while the model trains: by class, by hand, by an overridden train()."""
    modules = {name: module for name, module in model.named_modules() if name in catalogue.sites}
    frozen = {name for name, site in catalogue.sites.items() if site.frozen}
    frozen |= {name for name, module in modules.items() if model.training and not module.training}
    with preserved(model):
        try:
            model.train()
        except Exception:  # noqa: BLE001 - exported programs refuse train(); then no more is known
            return frozenset(frozen)
        return frozenset(frozen | {name for name, bn in modules.items() if not bn.training})


def select_layers(
    catalogue: BatchNormCatalogue,
    calls: Mapping[str, int],
    *,
    batch_statistics: Collection[str] = (),
    frozen: Collection[str] = (),
) -> Selection:
    """Choose the layers to write.

    Args:
        catalogue: All BN of the model.
        calls: How often each BN is called in a forward; absent if no batch reached it.
        batch_statistics: BN that normalise by the batch even in eval.
        frozen: BN frozen while training, to be left alone.
    """
    names: list[str] = []
    skipped = list(catalogue.untracked)
    for name in catalogue.sites:
        if name in batch_statistics:
            reason = "normalises by the batch even in eval(): its buffers are not used"
        elif name not in calls:
            reason = catalogue.why_unreached(name)
        elif name in catalogue.opaque:
            reason = "computes something else than BatchNorm, in a forward of its own"
        elif catalogue.sites[name].buffers is None:
            reason = "its statistics are no buffers of the model: they are not saved with it"
        elif calls[name] > 1:
            reason = f"called {calls[name]} times per forward: one buffer cannot serve them all"
        elif name in frozen:
            reason = "frozen while training; --include-frozen writes it all the same"
        else:
            names.append(name)
            continue
        skipped.append(Skipped(name, reason))
    return Selection(tuple(names), tuple(skipped))
