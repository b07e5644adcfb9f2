"""varshift: finds BatchNorm layers whose statistics no longer hold once dropout is off.

    from varshift_cli import scan, recalibrate

    report = scan(model, batches)       # a Report: layers, causes, findings, effect
    record = recalibrate(model, batches)  # exact statistics, written into the model's buffers

Everything here is loaded on first use, so that importing the package (and ``varshift --help``)
imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from varshift_cli.errors import (
        ArchitectureError,
        CheckpointError,
        CheckpointNotFoundError,
        ConfigError,
        DataError,
        FixDeclinedError,
        ForwardError,
        NothingToMeasureError,
        ReportError,
        UsageError,
        VarshiftError,
        WriteError,
    )
    from varshift_cli.nn import GaussianDropout, Uout
    from varshift_cli.pipeline import correct, recalibrate, scan
    from varshift_cli.records import (
        AttributionShare,
        BuffersRecord,
        CalibrationRecord,
        Case,
        ChannelFigures,
        CheckpointRecord,
        Describe,
        DropoutLink,
        DropoutRecord,
        Effect,
        FactorIntervals,
        Factors,
        Finding,
        FindingLevel,
        FixRecord,
        Interval,
        LayerRecord,
        LayerRepair,
        Level,
        RegimeScores,
        Remedy,
        RepairRecord,
        Report,
        Score,
        Skipped,
        Status,
        Verdict,
    )

__version__ = "0.1.0"

_ROOMS: dict[str, tuple[str, ...]] = {
    "varshift_cli.nn": ("GaussianDropout", "Uout"),
    "varshift_cli.pipeline": ("correct", "recalibrate", "scan"),
    "varshift_cli.errors": (
        "ArchitectureError",
        "CheckpointError",
        "CheckpointNotFoundError",
        "ConfigError",
        "DataError",
        "FixDeclinedError",
        "ForwardError",
        "NothingToMeasureError",
        "ReportError",
        "UsageError",
        "VarshiftError",
        "WriteError",
    ),
    "varshift_cli.records": (
        "AttributionShare",
        "BuffersRecord",
        "CalibrationRecord",
        "Case",
        "ChannelFigures",
        "CheckpointRecord",
        "Describe",
        "DropoutLink",
        "DropoutRecord",
        "Effect",
        "FactorIntervals",
        "Factors",
        "Finding",
        "FindingLevel",
        "FixRecord",
        "Interval",
        "LayerRecord",
        "LayerRepair",
        "Level",
        "RegimeScores",
        "Remedy",
        "RepairRecord",
        "Report",
        "Score",
        "Skipped",
        "Status",
        "Verdict",
    ),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "ArchitectureError",
    "AttributionShare",
    "BuffersRecord",
    "CalibrationRecord",
    "Case",
    "ChannelFigures",
    "CheckpointError",
    "CheckpointNotFoundError",
    "CheckpointRecord",
    "ConfigError",
    "DataError",
    "Describe",
    "DropoutLink",
    "DropoutRecord",
    "Effect",
    "FactorIntervals",
    "Factors",
    "Finding",
    "FindingLevel",
    "FixDeclinedError",
    "FixRecord",
    "ForwardError",
    "GaussianDropout",
    "Interval",
    "LayerRecord",
    "LayerRepair",
    "Level",
    "NothingToMeasureError",
    "RegimeScores",
    "Remedy",
    "RepairRecord",
    "Report",
    "ReportError",
    "Score",
    "Skipped",
    "Status",
    "Uout",
    "UsageError",
    "VarshiftError",
    "Verdict",
    "WriteError",
    "__version__",
    "correct",
    "recalibrate",
    "scan",
]


def __getattr__(name: str) -> Any:
    room = _HOMES.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
