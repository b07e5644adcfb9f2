"""The facts that travel between the rooms: frozen dataclasses, no torch, no numpy.

Field names are the keys of the JSON report (``schema_version`` 1). Letters used throughout:
``R`` running buffer, ``T`` train regime (dropout on), ``C`` clean regime (dropout off), ``E`` eval
regime (dropout off, running buffers). Variances are unbiased (ddof 1) over all values of a
channel. A ratio is always taken with ``+eps`` on both sides, as BatchNorm (BN) divides by
``sqrt(var + eps)``.
"""

from typing import TYPE_CHECKING, Any

from varshift_cli.records.findings import (
    MEAN_IS_OFF,
    NO_LABELS,
    NON_FINITE,
    NOT_FINITE,
    Effect,
    Finding,
    RegimeScores,
    Remedy,
)
from varshift_cli.records.layers import (
    AttributionShare,
    ChannelFigures,
    DropoutLink,
    DropoutRecord,
    FactorIntervals,
    Factors,
    Interval,
    LayerRecord,
    Prediction,
    Skipped,
    worst_layer,
)
from varshift_cli.records.levels import LEVEL_BOUNDS, Case, Describe, FindingLevel, Level, Status
from varshift_cli.records.paths import dotted
from varshift_cli.records.policy import LayerRule, Policy, Suppression
from varshift_cli.records.progress import Progress, SilentProgress, stage
from varshift_cli.records.report import (
    SCHEMA_VERSION,
    BuffersRecord,
    CalibrationRecord,
    CheckpointRecord,
    Report,
    draw_reports_with,
)
from varshift_cli.records.verdicts import (
    BaselineRecord,
    LayerVerdict,
    Outcome,
    Suppressed,
    Verdict,
    layer_verdicts,
    outcome_of,
)

if TYPE_CHECKING:
    from varshift_cli.records.batch import Batch
    from varshift_cli.records.diff import (
        Change,
        CheckpointDiff,
        ReportDiff,
        ShiftChange,
        StatisticsChange,
    )
    from varshift_cli.records.inspection import InspectedLayer, Inspection
    from varshift_cli.records.lint import LintReport, StoredLayer
    from varshift_cli.records.reads import files_read
    from varshift_cli.records.repairs import (
        DropoutChange,
        FixRecord,
        LayerRepair,
        RepairRecord,
        Score,
    )
    from varshift_cli.records.requests import FixRequest, ScanRequest

__all__ = [
    "LEVEL_BOUNDS",
    "MEAN_IS_OFF",
    "NON_FINITE",
    "NOT_FINITE",
    "NO_LABELS",
    "SCHEMA_VERSION",
    "AttributionShare",
    "BaselineRecord",
    "Batch",
    "BuffersRecord",
    "CalibrationRecord",
    "Case",
    "Change",
    "ChannelFigures",
    "CheckpointDiff",
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
    "FixRequest",
    "InspectedLayer",
    "Inspection",
    "Interval",
    "LayerRecord",
    "LayerRepair",
    "LayerRule",
    "LayerVerdict",
    "Level",
    "LintReport",
    "Outcome",
    "Policy",
    "Prediction",
    "Progress",
    "RegimeScores",
    "Remedy",
    "RepairRecord",
    "Report",
    "ReportDiff",
    "ScanRequest",
    "Score",
    "ShiftChange",
    "SilentProgress",
    "Skipped",
    "StatisticsChange",
    "Status",
    "StoredLayer",
    "Suppressed",
    "Suppression",
    "Verdict",
    "dotted",
    "draw_reports_with",
    "files_read",
    "layer_verdicts",
    "outcome_of",
    "stage",
    "worst_layer",
]

_LATER = (
    "ScanRequest",
    "FixRequest",
    "Batch",
    "Change",
    "CheckpointDiff",
    "DropoutChange",
    "FixRecord",
    "InspectedLayer",
    "Inspection",
    "LayerRepair",
    "LintReport",
    "RepairRecord",
    "ReportDiff",
    "Score",
    "ShiftChange",
    "StatisticsChange",
    "StoredLayer",
    "files_read",
)
"""Records that ``varshift check`` does not need; each of them takes time to make."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load the records of :data:`_LATER` on first use."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from varshift_cli.records import batch, diff, inspection, lint, reads, repairs, requests

        for module in (batch, diff, inspection, lint, reads, repairs, requests):
            globals().update(
                {each: getattr(module, each) for each in _LATER if hasattr(module, each)}
            )
        return globals()[name]
