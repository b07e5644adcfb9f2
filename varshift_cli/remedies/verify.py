"""The proof: what BatchNorm meets in eval() against what its buffers now hold.

A separate eval pass, one batch after the other, shares nothing with the pass that computed the
statistics but the model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from varshift_cli.instrument import BatchNormCatalogue, borrowed
from varshift_cli.instrument.borrow import Forward
from varshift_cli.instrument.failures import told_forward_errors
from varshift_cli.measurement.outputs import Outputs
from varshift_cli.measurement.passes import run_eval
from varshift_cli.measurement.regimes import EvalRegime
from varshift_cli.measurement.samples import Samples
from varshift_cli.records import Batch, Progress, stage
from varshift_cli.statistics import live_channels, log_ratio


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """One eval pass.

    Attributes:
        worst: exp of the largest |ln((E+eps)/(R+eps))| over live channels, by BN name.
        mean: exp of the mean over live channels of the same.
        outputs: Model outputs of all samples, or None.
        always_on: Names of dropouts that stay on in eval().
    """

    worst: dict[str, float]
    mean: dict[str, float]
    outputs: Tensor | None
    always_on: tuple[str, ...]


def verify(
    model: nn.Module,
    catalogue: BatchNormCatalogue,
    batches: Sequence[Batch],
    *,
    names: Collection[str] | None = None,
    progress: Progress,
    forward: Forward | None = None,
) -> Verification:
    """Run the batches as deployed and compare; only layers in ``names`` when given.

    Raises:
        ForwardError: The model's forward raised.
    """
    regime = EvalRegime(Samples.anonymous(len(batches)), seed=0, grouped=False)
    outputs = Outputs()

    def keep(index: int, output: object) -> None:
        outputs.keep(index, output)
        progress.advance()

    with (
        stage(progress, "verifying eval pass", len(batches)),
        told_forward_errors(model, batches),
        borrowed(model, catalogue, forward) as instrumented,
    ):
        run_eval(instrumented, batches, regime, keep)
    always_on = tuple(sorted({key.name for key in regime.always_on}))
    return Verification(
        **shifts_of(_called(catalogue, regime, names)),
        outputs=outputs.joined(sum(batch.size for batch in batches)),
        always_on=always_on,
    )


def shifts_of(calls: Iterable[tuple[str, Tensor, Tensor, float]]) -> dict[str, dict[str, float]]:
    """``worst`` and ``mean`` of a :class:`Verification`.

    Args:
        calls: Name, R, E and eps of every BN call; of several calls the farthest counts.
    """
    worst: dict[str, float] = {}
    mean: dict[str, float] = {}
    for name, running, var, eps in calls:
        live = live_channels(running, var, eps)
        ratio = log_ratio(var, running, eps)[live].abs()
        empty = ratio.numel() == 0
        largest, average = (0.0, 0.0) if empty else (float(ratio.max()), float(ratio.mean()))
        for kept, figure in ((worst, largest), (mean, average)):
            # NaN compares false with everything: it must win, not get lost.
            shift = math.exp(figure)
            kept[name] = shift if not shift <= kept.get(name, 1.0) else kept.get(name, 1.0)
    return {"worst": worst, "mean": mean}


def _called(
    catalogue: BatchNormCatalogue, regime: EvalRegime, names: Collection[str] | None
) -> Iterable[tuple[str, Tensor, Tensor, float]]:
    for key, moments in regime.gathered.moments.items():
        if names is None or key.name in names:
            running = catalogue.sites[key.name].held_var
            yield key.name, running, moments.pooled().var, regime.eps[key]
