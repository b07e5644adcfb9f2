"""The report of a scan, and what it was measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from varshift_cli.records.findings import Effect, Finding, Remedy
from varshift_cli.records.layers import DropoutRecord, LayerRecord, Skipped
from varshift_cli.records.levels import Describe
from varshift_cli.records.verdicts import Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """Where the weights came from; all ``None`` for a model that was already in memory."""

    path: str | None = None
    sha256: str | None = None
    container: str | None = None
    """``zip``, ``safetensors``, ... as named by :mod:`varshift_cli.loading.containers`."""
    key: str | None = None
    """Dotted path of the state dict inside the file (``""``: the file itself)."""
    arch: str | None = None
    """The call that built the model, as it was run: ``model.py:build(p=0.5)``."""


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """What was measured with."""

    data: str | None
    samples: int
    batch_size: int | None
    """Samples per batch; ``None`` when the loader's own batches differ in size."""
    batches: int
    groups: int
    """Number of equal groups of samples behind every interval."""
    windows: int
    """1 when statistics are exact in one pass; more when memory forced windows."""
    seed: int
    device: str
    dtype: str
    torch_version: str
    method: str = "lockstep"
    """``lockstep``, or ``layer by layer`` for a forward whose control flow depends on the data."""


@dataclass(frozen=True, slots=True)
class BuffersRecord:
    """Regression of ln R/C on ln T/C within layers: 1 gathered with dropout on, 0 without."""

    describe: Describe = Describe.UNKNOWN
    slope: float | None = None
    slope_se: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything ``varshift scan`` found; every output format is a function of this."""

    varshift_version: str
    checkpoint: CheckpointRecord
    calibration: CalibrationRecord
    buffers: BuffersRecord
    layers: tuple[LayerRecord, ...]
    dropouts: tuple[DropoutRecord, ...]
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]
    remedies: Mapping[str, tuple[Remedy, ...]]
    effect: Effect | None
    verdict: Verdict
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Dotted JSON path of a figure that is ``null`` -> the reason why."""
    notes: tuple[str, ...] = ()
    """What opening the checkpoint and the data brought up: which weights were taken, and the
    like."""
    schema_version: int = SCHEMA_VERSION

    def __str__(self) -> str:
        """The table, once :mod:`varshift_cli.report` is loaded (``varshift_cli.scan`` loads it)."""
        draw = _DRAWN.get("text")
        return repr(self) if draw is None else draw(self)

    def _repr_html_(self) -> str | None:
        """The table for a notebook, likewise; ``None`` makes it show the text."""
        draw = _DRAWN.get("html")
        return None if draw is None else draw(self)


_DRAWN: dict[str, Callable[[Report], str]] = {}


def draw_reports_with(*, text: Callable[[Report], str], html: Callable[[Report], str]) -> None:
    """Register how a report shows itself; records know of no format."""
    _DRAWN.update(text=text, html=html)
