"""Where there is nothing to measure: too few samples, or no BN that could tell anything."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from varshift_cli.errors import DataError, NothingToMeasureError
from varshift_cli.instrument import BatchNormCatalogue
from varshift_cli.records import Batch

_NAMED = 3
"""Layers or modules named in a message; the rest are counted."""


def nothing_to_measure(
    catalogue: BatchNormCatalogue,
    by_batch: Collection[str] = (),
    switched: Sequence[str] = (),
) -> NothingToMeasureError:
    """Why none of a model's BN can be measured.

    Args:
        catalogue: Its BN.
        by_batch: BN that normalise by the batch even in eval().
        switched: The outermost modules that the forward itself put in train mode.
    """
    if by_batch:
        return _all_by_batch(sorted(by_batch), switched)
    if catalogue.sites:
        return NothingToMeasureError(
            f"no batch reached {_named(list(catalogue.sites))}",
            hint="Check that the data take the path through them, or give --forward.",
        )
    if catalogue.untracked:
        return NothingToMeasureError(
            f"none of the {len(catalogue.untracked)} BatchNorm layers keeps running statistics "
            "(track_running_stats=False): there is nothing that could have shifted",
        )
    return NothingToMeasureError(
        "the model has no BatchNorm layer with running statistics",
        hint="varshift measures BatchNorm only; LayerNorm and GroupNorm have no variance shift.",
    )


def _all_by_batch(by_batch: Sequence[str], switched: Sequence[str]) -> NothingToMeasureError:
    unused = f"even in eval() the buffers of {_named(by_batch)} are not used"
    if not switched:
        return NothingToMeasureError(
            f"nothing to measure: {unused}, but the statistics of each batch",
            hint="Pass training=self.training to functional batch_norm, and scan again.",
        )
    more = f" and {len(switched) - _NAMED} more modules" if len(switched) > _NAMED else ""
    what = ", ".join(f"'{each}'" for each in switched[:_NAMED] if each) + more or "the model"
    return NothingToMeasureError(
        f"the model's own forward puts {what} in train mode: {unused}",
        hint="Take the call of train() out of forward: as it stands, eval() has no effect.",
    )


def _named(names: Sequence[str]) -> str:
    """``the 12 BatchNorm layers (bn1, bn2, bn3, ...)``."""
    some = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"the {len(names)} BatchNorm layers ({some})" if len(names) > 1 else f"'{some}'"


def check_batches(batches: Sequence[Batch]) -> int:
    """Number of samples; at least two are needed.

    Raises:
        DataError: There are fewer.
    """
    total = sum(batch.size for batch in batches)
    if total < 2:
        found = "none" if total == 0 else "one"
        raise DataError(
            f"expected at least 2 calibration samples, found {found}",
            hint="A few hundred samples of the training data give useful intervals.",
        )
    return total
