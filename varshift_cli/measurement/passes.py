"""Run all batches through a regime, and keep what the model returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.liveness import live_bytes
from varshift_cli.instrument.lockstep import Diverged, ForwardRaised, run_lockstep
from varshift_cli.instrument.stepwise import run_stepwise
from varshift_cli.measurement.memory import memory_budget, plan_windows
from varshift_cli.measurement.regimes import EvalRegime, PopulationRegime
from varshift_cli.measurement.samples import few_of
from varshift_cli.measurement.small_batches import BatchRegime
from varshift_cli.measurement.unmixed import UnmixedRegime
from varshift_cli.records import Batch

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


def forget(_index: int, _output: object) -> None:
    """Keep nothing: where the outputs of a pass are of no use."""


def run_eval(
    instrumented: Instrumented,
    batches: Sequence[Batch],
    regime: EvalRegime | BatchRegime | UnmixedRegime,
    keep: Keep,
) -> None:
    """Every batch for itself, one after the other.

    Raises:
        ForwardRaised: The model raised.
    """
    instrumented.decide(few_of(batches[0]))
    for index, batch in enumerate(batches):
        try:
            output = instrumented.run(regime, batch, index)
        except Exception as error:
            raise ForwardRaised(index) from error
        keep(index, output)


def run_population(
    instrumented: Instrumented,
    batches: Sequence[Batch],
    regime: PopulationRegime,
    keep: Keep,
    *,
    memory: int | None = None,
) -> Procedure:
    """Every batch, BN normalising by the statistics of all of them.

    Args:
        instrumented: The model.
        batches: All of them; a single one needs no threads.
        regime: Takes and gives the statistics.
        keep: Told as each forward ends.
        memory: Bytes that parked forwards may hold; half of what is free by default.

    Returns:
        How it was done: in lockstep, or layer by layer where control flow depends on the data; in
        one window, or in several where memory does not allow for one.

    Raises:
        ForwardRaised: The model raised.
    """
    instrumented.decide(few_of(batches[0]))
    windows = _windows(instrumented, batches, memory)
    diverged: str | None = None
    for window in windows:
        regime.begin_window(len(window))
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


def _windows(
    instrumented: Instrumented, batches: Sequence[Batch], memory: int | None
) -> list[list[tuple[int, Batch]]]:
    if len(batches) < 2:
        return plan_windows(batches, 0.0, 1)
    few = few_of(batches[0])
    device = next((site.running_var.device for site in instrumented.sites.values()), "cpu")
    budget = memory_budget(None, device) if memory is None else memory
    try:
        held = live_bytes(instrumented, few) / few.size
    except Exception:  # noqa: BLE001 - a forward that fails on a few samples tells nothing here
        held = 0.0
    return plan_windows(batches, held, budget)
