"""What a repair would score on samples it has not seen: each part by statistics of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from varshift_cli.errors import FixDeclinedError
from varshift_cli.measurement.folds import Fold
from varshift_cli.records import Batch, Progress
from varshift_cli.remedies import (
    NewStatistics,
    Populations,
    Workload,
    corrected,
    gather_populations,
    recalibrated,
    verify,
)
from varshift_cli.remedies.undoing import tried

METHODS = ("recalibrate", "correct")


def statistics_by(method: str, found: Populations, work: Workload) -> NewStatistics:
    """What a method writes.

    Raises:
        FixDeclinedError: It cannot be used here.
    """
    return recalibrated(found) if method == "recalibrate" else corrected(found, work.catalogue)


def cross_fit(
    work: Workload, folds: Sequence[Fold], methods: Sequence[str], samples: int
) -> dict[str, Tensor]:
    """Outputs of every sample after each repair, from statistics that it had no part in.

    Args:
        work: What to repair; left as it is.
        folds: Parts of its batches.
        methods: Of :data:`METHODS`.
        samples: In all.

    Returns:
        By method, shape (samples, ...); methods that cannot be used here, or whose outputs cannot
        be compared, are left out.
    """
    outputs: dict[str, list[Tensor]] = {method: [] for method in methods}
    for number, fold in enumerate(folds, start=1):
        part = replace(
            work.on(fold.train),
            progress=_Part(work.progress, f"held-out part {number} of {len(folds)}: "),
        )
        found = gather_populations(part, with_train="correct" in outputs)
        for method in tuple(outputs):
            scored = _held_out(method, found, part, fold.test)
            if scored is None:
                del outputs[method]
            else:
                outputs[method].append(scored)
    rows = torch.cat([fold.rows for fold in folds])
    return {method: _in_order(parts, rows, samples) for method, parts in outputs.items()}


def outputs_after(work: Workload, new: NewStatistics, batches: Sequence[Batch]) -> Tensor | None:
    """Outputs on other batches with new statistics in place; the old ones are back afterwards."""
    with tried(work.catalogue, new.populations):
        return verify(
            work.model, work.catalogue, batches, progress=work.progress, forward=work.forward
        ).outputs


def _held_out(
    method: str, found: Populations, work: Workload, test: Sequence[Batch]
) -> Tensor | None:
    try:
        new = statistics_by(method, found, work)
    except FixDeclinedError:
        return None
    return outputs_after(work, new, test)


def _in_order(parts: Sequence[Tensor], rows: Tensor, samples: int) -> Tensor:
    joined = torch.cat(list(parts))
    ordered = torch.empty((samples, *joined.shape[1:]), dtype=joined.dtype)
    ordered[rows] = joined
    return ordered


@dataclass(frozen=True, slots=True)
class _Part:
    """The progress of one part, told as such."""

    whole: Progress
    prefix: str

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` equal steps begins."""
        self.whole.start(self.prefix + stage, total)

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        self.whole.advance(steps)

    def finish(self) -> None:
        """The stage is over."""
        self.whole.finish()

    def remark(self, text: str) -> None:
        """Something worth saying."""
        self.whole.remark(text)
