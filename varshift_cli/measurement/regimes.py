"""The regimes in which calibration batches are run.

``E`` eval: as deployed. ``T`` train: dropout on. ``C`` clean: dropout off. In ``T`` and ``C`` BN
normalises by the population statistics of the very pass, with ddof 1: the value that a repair
writes (the biased variance would leave 3 to 12 % at the sixth BN1d layer with 32 to 128 samples).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

from varshift_cli.instrument.calls import BatchNormCall, NoiseCall, normalise_by_batch
from varshift_cli.instrument.sites import BatchNormKey, NoiseKey
from varshift_cli.measurement.samples import Samples
from varshift_cli.statistics import GroupMoments

Switch = Callable[[NoiseCall], NoiseCall | None]
"""What becomes of a dropout: the call to carry out, the same or another, or ``None``: off."""


def all_on(call: NoiseCall) -> NoiseCall | None:
    """T: every dropout as the model has it, whatever flag it passed."""
    return call


def all_off(_call: NoiseCall) -> NoiseCall | None:
    """C: no dropout, whatever flag the model passed."""
    return None


def _say_nothing(_batches: int) -> None:
    """Nobody asked how far a pass has come."""


class MomentsByCall:
    """Moments of every BN call's input, in order of first arrival."""

    def __init__(self, samples: Samples, *, grouped: bool) -> None:
        self._samples = samples
        self._grouped = grouped
        self.moments: dict[BatchNormKey, GroupMoments] = {}

    def add(self, call: BatchNormCall, batch: int) -> None:
        """Take in one batch's input of a BN call."""
        x = call.input
        moments = self.moments.get(call.key)
        if moments is None:
            groups = self._samples.count if self._grouped else 1
            moments = GroupMoments(groups, x.shape[1])
            self.moments[call.key] = moments
        moments.add(x, self._samples.group_of(batch, x.shape[0]) if self._grouped else 0)

    def take(self, other: MomentsByCall) -> None:
        """Merge what another gathered."""
        for key, moments in other.moments.items():
            if key in self.moments:
                self.moments[key].merge(moments)
            else:
                self.moments[key] = moments


class EvalRegime:
    """As deployed: running buffers, dropout as the model asks for it.

    Attributes:
        gathered: Moments of what enters each BN.
        always_on: Noise that the model switched on although every flag says eval.
        batch_statistics: Names of BN that normalise by the batch even in eval.
        eps: Of every BN call.
    """

    def __init__(self, samples: Samples, *, seed: int, grouped: bool = True) -> None:
        self._samples = samples
        self._seed = seed
        self.gathered = MomentsByCall(samples, grouped=grouped)
        self.always_on: dict[NoiseKey, float | None] = {}
        self.batch_statistics: set[str] = set()
        self.eps: dict[BatchNormKey, float] = {}

    def batch_norm(self, call: BatchNormCall, batch: int) -> Tensor:
        """Gather, then normalise as deployed."""
        if call.training:
            self.batch_statistics.add(call.key.name)
            return normalise_by_batch(call)
        self.eps[call.key] = call.eps
        self.gathered.add(call, batch)
        return call.as_deployed()

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """Only noise that ignores eval() is on here."""
        if not call.training or call.silent:
            return call.off()
        self.always_on[call.key] = call.p
        return call.apply(self._seed, self._samples.keys[batch])


class PopulationRegime:
    """``T`` or ``C``: BN by the population statistics of this pass.

    Args:
        samples: Keys and groups.
        noise_on: Whether dropout is on (T) or off (C); or a switch that decides for each call.
        seed: Of the masks.
        grouped: Keep moments by group; only the total is kept otherwise.
        kept: Names of BN that go on normalising by their running buffers.

    Attributes:
        gathered: Moments of what enters each BN.
        noise_seen: p of every dropout that the forward met with p > 0.
        batch_statistics: Names of BN that normalise by the batch even in eval.
        eps: Of every BN call.
        on_settled: Told, as each BN call is settled, how many batches went through it.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        noise_on: bool | Switch,
        seed: int,
        grouped: bool = True,
        kept: Collection[str] = (),
    ) -> None:
        self._samples = samples
        self._switch = noise_on if callable(noise_on) else all_on if noise_on else all_off
        self._seed = seed
        self._grouped = grouped
        self._kept = frozenset(kept)
        self._window = MomentsByCall(samples, grouped=grouped)
        self._settled: dict[BatchNormKey, tuple[Tensor, Tensor]] = {}
        self._written: dict[BatchNormKey, tuple[Tensor, Tensor]] = {}
        self.gathered = MomentsByCall(samples, grouped=grouped)
        self.noise_seen: dict[NoiseKey, float | None] = {}
        self.batch_statistics: set[str] = set()
        self.eps: dict[BatchNormKey, float] = {}
        self.on_settled: Callable[[int], None] = _say_nothing
        self._batches = 1

    def collect(self, call: BatchNormCall, batch: int) -> None:
        """Take in one batch's input."""
        if call.training:
            self.batch_statistics.add(call.key.name)
        self.eps[call.key] = call.eps
        self._window.add(call, batch)

    def settle(self, key: BatchNormKey) -> None:
        """Fix the statistics by which this call normalises from now on."""
        moments = self._window.moments[key]
        total = moments.pooled()
        self._settled[key] = (total.mean, total.var)
        self.on_settled(self._batches)

    def normalise(self, call: BatchNormCall) -> Tensor:
        """BN by the settled statistics, in the precision in which they would be written."""
        if call.training:
            return normalise_by_batch(call)
        if call.key.name in self._kept:
            return call.as_deployed()
        written = self._written.get(call.key)
        if written is None:
            # Once, not for every batch: a copy to another device is a wait.
            written = self._written[call.key] = call.as_written(*self._settled[call.key])
        return call.normalise(*written)

    def noise(self, call: NoiseCall, batch: int) -> Any:
        """What the switch says, whatever flag the model passed."""
        if not call.silent:
            self.noise_seen[call.key] = call.p
        chosen = self._switch(call)
        return call.off() if chosen is None else chosen.apply(self._seed, self._samples.keys[batch])

    def begin_window(self, batches: int) -> None:
        """So many batches are about to go through together."""
        self._batches = batches

    def close_window(self) -> None:
        """All batches of a window are through: add its moments to the total."""
        self.gathered.take(self._window)
        self.discard_window()

    def discard_window(self) -> None:
        """Forget what the current window gathered."""
        self._window = MomentsByCall(self._samples, grouped=self._grouped)
        self._settled.clear()
        self._written.clear()
