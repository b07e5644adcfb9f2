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
    from varshift_cli.gate import judge_report
    from varshift_cli.integrations import (
        ShiftMonitor,
        ShiftPoint,
        VarianceShiftError,
        assert_variance_shift,
    )
    from varshift_cli.nn import DropoutLinear, GaussianDropout, Uout
    from varshift_cli.pipeline import correct, move_dropout, recalibrate, scan, swap_dropout
    from varshift_cli.records import (
        AttributionShare,
        BaselineRecord,
        BuffersRecord,
        CalibrationRecord,
        Case,
        ChannelFigures,
        CheckpointRecord,
        Describe,
        DropoutChange,
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
        LayerRule,
        LayerVerdict,
        Level,
        Outcome,
        Policy,
        Prediction,
        RegimeScores,
        Remedy,
        RepairRecord,
        Report,
        Score,
        Skipped,
        Status,
        Suppressed,
        Suppression,
        Verdict,
    )
    from varshift_cli.report import from_json, render, to_json

__version__ = "0.1.0"

_ROOMS: dict[str, tuple[str, ...]] = {
    "varshift_cli.gate": ("judge_report",),
    "varshift_cli.integrations": (
        "ShiftMonitor",
        "ShiftPoint",
        "VarianceShiftError",
        "assert_variance_shift",
    ),
    "varshift_cli.report": ("from_json", "render", "to_json"),
    "varshift_cli.nn": ("DropoutLinear", "GaussianDropout", "Uout"),
    "varshift_cli.pipeline": (
        "correct",
        "move_dropout",
        "recalibrate",
        "scan",
        "swap_dropout",
    ),
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
        "BaselineRecord",
        "BuffersRecord",
        "CalibrationRecord",
        "Case",
        "ChannelFigures",
        "CheckpointRecord",
        "Describe",
        "DropoutChange",
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
        "LayerRule",
        "LayerVerdict",
        "Level",
        "Prediction",
        "Outcome",
        "Policy",
        "RegimeScores",
        "Remedy",
        "RepairRecord",
        "Report",
        "Score",
        "Skipped",
        "Status",
        "Suppressed",
        "Suppression",
        "Verdict",
    ),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "ArchitectureError",
    "AttributionShare",
    "BaselineRecord",
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
    "DropoutChange",
    "DropoutLinear",
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
    "LayerRule",
    "LayerVerdict",
    "Level",
    "NothingToMeasureError",
    "Outcome",
    "Policy",
    "Prediction",
    "RegimeScores",
    "Remedy",
    "RepairRecord",
    "Report",
    "ReportError",
    "Score",
    "ShiftMonitor",
    "ShiftPoint",
    "Skipped",
    "Status",
    "Suppressed",
    "Suppression",
    "Uout",
    "UsageError",
    "VarianceShiftError",
    "VarshiftError",
    "Verdict",
    "WriteError",
    "__version__",
    "assert_variance_shift",
    "correct",
    "from_json",
    "judge_report",
    "move_dropout",
    "recalibrate",
    "render",
    "scan",
    "swap_dropout",
    "to_json",
]


def __getattr__(name: str) -> Any:
    room = _HOMES.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import random  # here, as the command line starts faster without it

    state = random.getstate()
    try:  # libraries may draw while they are imported; the user's random numbers are their own
        if room == "varshift_cli.pipeline":
            import_module("varshift_cli.report")  # so that the report of a scan can show itself
        value = getattr(import_module(room), name)
    finally:
        random.setstate(state)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
