"""Sees and switches: BatchNorm and dropout calls of any model, and gives it back as it was.

No buffer is touched, and no flag but those of noise that is Python, for the length of its forward.

Read in this order: ``sites`` (what is looked for), ``interception`` (how it is seen),
``forwards`` (running or pausing a model), ``lockstep`` and ``stepwise`` (population statistics),
``wiring`` (what reaches what), ``snapshot`` (giving the model back).
"""

from varshift_cli.instrument.borrow import borrowed
from varshift_cli.instrument.catalogue import BatchNormCatalogue, find_batch_norms
from varshift_cli.instrument.forwards import Instrumented
from varshift_cli.instrument.sites import (
    BatchNormKey,
    BatchNormSite,
    NoiseKey,
    display_names,
)
from varshift_cli.instrument.wiring import Wiring, trace_wiring

__all__ = [
    "BatchNormCatalogue",
    "BatchNormKey",
    "BatchNormSite",
    "Instrumented",
    "NoiseKey",
    "Wiring",
    "borrowed",
    "display_names",
    "find_batch_norms",
    "trace_wiring",
]
