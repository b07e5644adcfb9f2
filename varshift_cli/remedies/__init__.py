"""Repairs of a model's BatchNorm statistics, each proved by a separate eval pass."""

from varshift_cli.remedies.recalibrate import CleanStatistics, clean_statistics, write_statistics
from varshift_cli.remedies.selection import Selection, select_layers
from varshift_cli.remedies.verify import Verification, verify

__all__ = [
    "CleanStatistics",
    "Selection",
    "Verification",
    "clean_statistics",
    "select_layers",
    "verify",
    "write_statistics",
]
