"""Repairs of a model's BatchNorm statistics, each proved by a separate eval pass.

After ``loading`` and ``instrument`` the only room that changes a model: running buffers in place,
by ``recalibrate`` or ``correct``; dropouts by ``move`` and ``swap``, for the next training.
``trials`` changes nothing: it measures what each remedy would leave.
"""

from varshift_cli.remedies.correct import corrected
from varshift_cli.remedies.move import move_dropout
from varshift_cli.remedies.populations import Populations, Workload, gather_populations
from varshift_cli.remedies.recalibrate import (
    NewStatistics,
    recalibrated,
    write_statistics,
)
from varshift_cli.remedies.selection import Selection, select_layers
from varshift_cli.remedies.swap import swap_dropout
from varshift_cli.remedies.verify import Verification, verify

__all__ = [
    "NewStatistics",
    "Populations",
    "Selection",
    "Verification",
    "Workload",
    "corrected",
    "gather_populations",
    "move_dropout",
    "recalibrated",
    "select_layers",
    "swap_dropout",
    "verify",
    "write_statistics",
]
