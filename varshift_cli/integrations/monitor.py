"""Watch the variance shift while a network trains: a scan every few epochs, the worst is logged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from varshift_cli.errors import UsageError, VarshiftError
from varshift_cli.records import Batch, Interval, Report, worst_layer

if TYPE_CHECKING:
    from torch import nn

TAG = "varshift/worst_shift"
"""What the worst shift is logged as."""

SAMPLES = 1024
"""How many samples are kept for the scans, by default."""


@dataclass(frozen=True, slots=True)
class ShiftPoint:
    """The worst layer at the end of one epoch."""

    epoch: int
    """Counted from 1."""
    layer: str
    shift: float
    """exp of the mean over channels of |ln((E+eps)/(R+eps))|; >= 1."""
    interval: Interval | None
    """At 95 %."""


class ShiftMonitor:
    """Scans a network every few epochs of a training loop of your own.

        monitor = ShiftMonitor(model, loader, every=5, log=writer.add_scalar)
        for epoch in range(epochs):
            train_one_epoch(model, loader)
            monitor.step()

    The samples are drawn once, so that epochs can be compared; neither that nor a scan leaves a
    trace in the model, in its buffers, or in the random numbers of the training.

    Args:
        model: The network that trains.
        batches: A DataLoader or any iterable of batches, as :func:`varshift_cli.scan` takes them.
        every: Epochs from one scan to the next, at least 1.
        samples: How many samples to keep, in memory.
        log: Called with a tag, the worst shift and the epoch: ``writer.add_scalar``, or
            ``lambda tag, value, epoch: wandb.log({tag: value})``.
        seed: Of dropout masks and of the bootstrap.
        forward: ``forward(model, batch) -> outputs`` for models that are called otherwise.

    Attributes:
        history: The worst layer of each scan, oldest first.
        report: The last scan in full; ``None`` before the first.

    Raises:
        UsageError: ``every`` is less than 1.
        DataError: Fewer than two samples, or non-finite input.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        *,
        every: int = 5,
        samples: int = SAMPLES,
        log: Callable[[str, float, int], object] | None = None,
        seed: int = 0,
        forward: Callable[[nn.Module, Any], Any] | None = None,
    ) -> None:
        from varshift_cli.pipeline import draw_batches

        check_every(every)
        self.history: list[ShiftPoint] = []
        self.report: Report | None = None
        self._model = model
        self._batches: tuple[Batch, ...] = draw_batches(
            model, batches, samples=samples, as_given=forward is not None
        )[0]
        self._every = every
        self._log = log
        self._seed = seed
        self._forward = forward
        self._epoch = 0

    def step(self, epoch: int | None = None) -> ShiftPoint | None:
        """Tell that an epoch has ended; scan if it is time.

        Args:
            epoch: Its number, counted from 1; by default one more than the last.

        Returns:
            The worst layer, or ``None`` where no scan was due. A scan that fails later than the
            first is warned of, and ``None`` as well: it shall not end a training.

        Raises:
            VarshiftError: The first scan failed: there is no BatchNorm layer, say, or the forward
                raised.
        """
        self._epoch = self._epoch + 1 if epoch is None else epoch
        if self._epoch % self._every:
            return None
        return self.scan()

    def scan(self) -> ShiftPoint | None:
        """Scan now, due or not; raises and returns as :meth:`step` does."""
        from varshift_cli.pipeline import scan

        try:
            # Time of the training: which dropout it is can be asked for once, at its end.
            self.report = scan(
                self._model,
                self._batches,
                samples=None,
                seed=self._seed,
                attribute=False,
                forward=self._forward,
            )
        except VarshiftError as error:
            if self.report is None:
                raise
            warnings.warn(f"no scan after epoch {self._epoch}: {error}", stacklevel=2)
            return None
        worst = worst_layer(self.report.layers)
        if worst is None or worst.shift is None:
            return None
        point = ShiftPoint(self._epoch, worst.name, worst.shift, worst.shift_interval)
        self.history.append(point)
        if self._log is not None:
            self._log(TAG, point.shift, point.epoch)
        return point


def check_every(every: int) -> None:
    """Refuse a period that is none.

    Raises:
        UsageError: It is less than one epoch.
    """
    if every < 1:
        raise UsageError(f"every counts epochs and must be at least 1, but is {every}")
