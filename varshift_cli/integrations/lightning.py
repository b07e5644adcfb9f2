"""A Lightning callback: a scan every few epochs, the worst shift among the logged metrics.

    from varshift_cli.integrations.lightning import VarianceShiftCallback

    trainer = Trainer(callbacks=[VarianceShiftCallback(every=5)])

Works with ``lightning`` and with ``pytorch_lightning``; with both installed it is the one that
was imported first, as a callback must be of the kind that the trainer knows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from varshift_cli.integrations.monitor import SAMPLES, TAG, ShiftMonitor, check_every

_OLD = "pytorch_lightning"

try:
    if _OLD in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning.callbacks import Callback
    else:
        try:
            from lightning.pytorch.callbacks import Callback
        except ImportError:
            from pytorch_lightning.callbacks import Callback
except ImportError as error:
    raise ImportError(
        "varshift_cli.integrations.lightning needs Lightning: pip install lightning"
    ) from error


class VarianceShiftCallback(Callback):
    """Scans the module at the end of every few training epochs, on the first process.

    Logs ``varshift/worst_shift``, the worst layer's shift (a ratio >= 1), with ``pl_module.log``.

    Args:
        batches: What to scan with, as :func:`varshift_cli.scan` takes it; by default the trainer's
            own training batches. Drawn once, when the training begins.
        every: Epochs from one scan to the next, at least 1.
        samples: How many samples to keep, in memory.
        seed: Of dropout masks and of the bootstrap.
        forward: ``forward(module, batch) -> outputs`` for modules without a ``forward`` that takes
            a batch's input.

    Attributes:
        monitor: The :class:`~varshift_cli.ShiftMonitor`, with ``history`` and the last ``report``;
            ``None`` before the training, and on processes other than the first.

    Raises:
        UsageError: ``every`` is less than 1.
    """

    def __init__(
        self,
        batches: Iterable[Any] | None = None,
        *,
        every: int = 5,
        samples: int = SAMPLES,
        seed: int = 0,
        forward: Callable[[nn.Module, Any], Any] | None = None,
    ) -> None:
        super().__init__()
        check_every(every)
        self.monitor: ShiftMonitor | None = None
        self._batches = batches
        self._every = every
        self._samples = samples
        self._seed = seed
        self._forward = forward

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Draw the samples.

        Raises:
            DataError: Fewer than two samples, or non-finite input.
        """
        if not trainer.is_global_zero:
            return
        batches = trainer.train_dataloader if self._batches is None else self._batches
        self.monitor = ShiftMonitor(
            pl_module,
            batches,
            every=self._every,
            samples=self._samples,
            seed=self._seed,
            forward=self._forward,
        )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Scan if it is time, and log the worst shift."""
        if self.monitor is None:
            return
        point = self.monitor.step(trainer.current_epoch + 1)
        if point is not None:
            pl_module.log(TAG, point.shift, rank_zero_only=True)
