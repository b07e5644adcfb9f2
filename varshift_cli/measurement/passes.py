"""Run all batches through a regime, and keep what the model returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.lockstep import Diverged, ForwardRaised, run_lockstep
from varshift_cli.instrument.prefix import (
    Carrier,
    Plainly,
    recorder_and_player,
    recorder_and_players,
)
from varshift_cli.instrument.stepwise import run_stepwise
from varshift_cli.instrument.wiring import Wiring, trace_wiring
from varshift_cli.measurement.memory import granted, plan_windows
from varshift_cli.measurement.regimes import EvalRegime, PopulationRegime
from varshift_cli.measurement.regroup import join_factor
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How batches are to go through a population pass.

    Attributes:
        windows: Numbered batches that wait for each other.
        spare: Bytes that may be kept beside what they hold: at most half of what that leaves of
            the budget, and twice as much as they hold; none beside several windows, or on CUDA.
    """

    windows: Sequence[Sequence[tuple[int, Batch]]]
    spare: int = 0

    def carriers(self, wiring: Wiring) -> tuple[Carrier, Carrier]:
        """For a clean pass and the train pass after it, which takes from it what is the same."""
        if self.spare > 0 and any(visit.p != 0.0 for visit in wiring.noises):
            return recorder_and_player(self.spare)
        return Plainly(), Plainly()

    def repeatable(self) -> tuple[Carrier, Callable[[], Carrier]]:
        """For a pass, and for each of those after it that repeat part of it."""
        return recorder_and_players(self.spare) if self.spare > 0 else (Plainly(), Plainly)


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


def wire(instrumented: Instrumented, batches: Sequence[Batch]) -> tuple[Wiring, Batch]:
    """The wiring, and the batch that showed it: a few samples of the first, or all of it.

    Raises:
        ForwardRaised: The model raised.
    """
    whole = batches[0]
    few = few_of(whole)
    try:
        return trace_wiring(instrumented, few), few
    except Exception as error:
        if few is whole:
            raise ForwardRaised(0) from error
    # A model recorded or written for one batch size takes no other.
    try:
        return trace_wiring(instrumented, whole), whole
    except Exception as error:
        raise ForwardRaised(0) from error


def plan_join(
    instrumented: Instrumented, batches: Sequence[Batch], wiring: Wiring, memory: int | None = None
) -> int:
    """How many batches may go through together; as :func:`plan_passes`."""
    working = wiring.working_bytes * max(batch.size for batch in batches)
    return join_factor(working, len(batches), memory, _device_of(instrumented))


def plan_passes(
    instrumented: Instrumented, batches: Sequence[Batch], wiring: Wiring, memory: int | None = None
) -> Plan:
    """Windows of batches that memory allows for.

    Args:
        instrumented: The model.
        batches: All of them.
        wiring: Tells what a parked forward holds.
        memory: Bytes that parked forwards may hold; half of what is free by default.
    """
    device = _device_of(instrumented)
    budget = granted(memory, device)
    windows = plan_windows(batches, wiring.live_bytes, budget)
    parked = wiring.live_bytes * sum(batch.size for batch in batches)
    # On another device ops are sooner done than their results compared.
    shares = len(windows) == 1 and device.type == "cpu"
    spare = min((budget - parked) / 2, 2 * parked) if shares else 0
    return Plan(windows, max(int(spare), 0))


def _device_of(instrumented: Instrumented) -> torch.device:
    sites = instrumented.sites.values()
    return next((site.running_var.device for site in sites), torch.device("cpu"))


def run_population(
    instrumented: Instrumented,
    batches: Sequence[Batch],
    regime: PopulationRegime,
    keep: Keep,
    *,
    plan: Plan | None = None,
    carrier: Carrier | None = None,
) -> Procedure:
    """Every batch, BN normalising by the statistics of all of them.

    Args:
        instrumented: The model.
        batches: All of them; a single one needs no threads.
        regime: Takes and gives the statistics.
        keep: Told as each forward ends.
        plan: In which windows; by default what half of the free memory allows for.
        carrier: Carries out the ops of forwards in lockstep.

    Returns:
        How it was done: in lockstep, or layer by layer where control flow depends on the data; in
        one window, or in several where memory does not allow for one.

    Raises:
        ForwardRaised: The model raised.
    """
    instrumented.decide(few_of(batches[0]))
    plan, carrier = plan or _plan_for(instrumented, batches), carrier or Plainly()
    diverged: str | None = None
    for window in plan.windows:
        regime.begin_window(len(window))
        if diverged is None:
            try:
                run_lockstep(instrumented, regime, window, keep, carrier)
            except Diverged as parting:
                diverged = parting.name
                regime.discard_window()
                carrier.forget()
        if diverged is not None:
            run_stepwise(instrumented, regime, window, keep)
        regime.close_window()
    return Procedure(len(plan.windows), diverged)


def _plan_for(instrumented: Instrumented, batches: Sequence[Batch]) -> Plan:
    if len(batches) == 1:
        return Plan([list(enumerate(batches))])
    return plan_passes(instrumented, batches, wire(instrumented, batches)[0])
