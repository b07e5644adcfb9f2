"""What was measured, and with what: the figures that make a report repeatable."""

from __future__ import annotations

from varshift_cli.records import CalibrationRecord, Report
from varshift_cli.report.text import count


def provenance(report: Report) -> list[tuple[str, str]]:
    """What was measured and with what, as pairs of a word and a value."""
    model, data = report.checkpoint, report.calibration
    pairs = [
        ("checkpoint", model.path or "model in memory"),
        ("sha256", model.sha256),
        ("container", model.container),
        ("key", model.key),
        ("architecture", model.arch),
        ("data", data.data or "data in memory"),
        ("samples", _samples(data)),
        ("groups behind intervals", str(data.groups)),
        ("method", data.method + (f", {data.windows} windows" if data.windows > 1 else "")),
        ("seed", str(data.seed)),
        ("device", f"{data.device}, {data.dtype}"),
        ("torch", data.torch_version),
        ("varshift", report.varshift_version),
    ]
    return [(name, value) for name, value in pairs if value]


def _samples(data: CalibrationRecord) -> str:
    size = "" if data.batch_size is None else f" of {data.batch_size}"
    return f"{data.samples:,} in {count(data.batches, 'batch', 'batches')}{size}"
