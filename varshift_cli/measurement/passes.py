"""Run all batches through a regime, and keep what the model returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.lockstep import Diverged, ForwardRaised, run_lockstep
from varshift_cli.instrument.stepwise import run_stepwise
from varshift_cli.measurement.regimes import EvalRegime, PopulationRegime
from varshift_cli.measurement.small_batches import BatchRegime
from varshift_cli.records import Batch

MAX_LIVE = 2048
"""Forwards in lockstep at the same time; more batches than that are measured in windows."""

Keep = Callable[[int, Any], None]
"""Told (batch index, model output) as each forward ends."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """How a population pass was carried out."""

    windows: int = 1
    diverged_at: str | None = None
    """The BN layer at which batches parted, when lockstep had to be given up."""

    @property
    def method(self) -> str:
        """As reported."""
        return "lockstep" if self.diverged_at is None else "layer by layer"


def run_eval(
    instrumented: Instrumented,
    batches: Sequence[Batch],
    regime: EvalRegime | BatchRegime,
    keep: Keep,
) -> None:
    """Every batch for itself, one after the other.

    Raises:
        ForwardRaised: The model raised.
    """
    for index, batch in enumerate(batches):
        try:
            output = instrumented.run(regime, batch, index)
        except Exception as error:
            raise ForwardRaised(index) from error
        keep(index, output)


def run_population(
    instrumented: Instrumented, batches: Sequence[Batch], regime: PopulationRegime, keep: Keep
) -> Procedure:
    """Every batch, BN normalising by the statistics of all of them.

    Returns:
        How it was done: in lockstep, or layer by layer where control flow depends on the data.

    Raises:
        ForwardRaised: The model raised.
    """
    numbered = list(enumerate(batches))
    windows = [numbered[at : at + MAX_LIVE] for at in range(0, len(numbered), MAX_LIVE)]
    diverged: str | None = None
    for window in windows:
        if diverged is None:
            try:
                run_lockstep(instrumented, regime, window, keep)
            except Diverged as parting:
                diverged = parting.name
                regime.discard_window()
        if diverged is not None:
            run_stepwise(instrumented, regime, window, keep)
        regime.close_window()
    return Procedure(len(windows), diverged)
