"""The report as JSON, ``schema_version`` 1: everything that was found, and back again.

Keys come in the order of the published schema, additional ones after them. The same report gives
the same bytes. What is unknown is ``null``, with the reason under ``unknown``; NaN and infinity
are no JSON and are never written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from varshift_cli.errors import ReportError
from varshift_cli.records import (
    SCHEMA_VERSION,
    CalibrationRecord,
    CheckpointRecord,
    LayerRecord,
    Report,
)
from varshift_cli.report.encoding import Encoder, Json, decode

if TYPE_CHECKING:
    from varshift_cli.records import (
        CheckpointDiff,
        FixRecord,
        Inspection,
        LintReport,
        ReportDiff,
    )

LINE = 100
"""A list or object that fits into a line of this width stays on one line."""

_ORDER: Mapping[type, tuple[str, ...]] = {
    Report: (
        "schema_version",
        "varshift_version",
        "checkpoint",
        "calibration",
        "buffers",
        "layers",
        "dropouts",
        "skipped",
        "findings",
        "remedies",
        "effect",
        "verdict",
    ),
    CheckpointRecord: ("path", "sha256", "container", "arch"),
    CalibrationRecord: (
        "data",
        "samples",
        "batch_size",
        "batches",
        "groups",
        "windows",
        "seed",
        "device",
        "dtype",
        "torch_version",
    ),
    LayerRecord: (
        "name",
        "kind",
        "num_features",
        "eps",
        "call",
        "shift",
        "shift_interval",
        "signed",
        "paper_ratio",
        "median_ratio",
        "mean_shift",
        "dead_channels",
        "level",
        "cause",
        "factors",
        "factor_intervals",
        "dropouts",
        "attribution",
        "attribution_residual",
    ),
}

_VERDICT = ("status", "threshold", "worst_layer", "worst_shift")


def to_json(report: Report) -> str:
    """The report as JSON text, ending in a newline."""
    encoder = Encoder(_ORDER)
    value = encoder.record(report)
    for layer in value["layers"]:
        if layer["channels"] is None:  # only on request, so not even a key without it
            del layer["channels"]
    value["verdict"] = {
        key: each
        for key, each in value["verdict"].items()
        if key in _VERDICT or each not in (None, [])  # further keys only where they say something
    }
    if not value["notes"]:
        del value["notes"]
    value["unknown"] = encoder.holes | value["unknown"]
    return _text(value)


def from_json(text: str) -> Report:
    """The report that :func:`to_json` wrote.

    Raises:
        ReportError: Not JSON, of another schema version, or not a report.
    """
    value = _parse(text)
    if not isinstance(value, dict) or "schema_version" not in value:
        raise ReportError(
            "this is not a varshift report: it has no schema_version",
            hint="varshift scan MODEL --report report.json writes one",
        )
    version = value["schema_version"]
    if version != SCHEMA_VERSION:
        raise ReportError(
            f"the report has schema_version {version!r}; this varshift reads {SCHEMA_VERSION}",
            hint="read it with the varshift that wrote it, or scan again",
        )
    if "layers" not in value and len(value) > 1:
        raise ReportError(
            "this is not the report of a scan: it has no layers",
            hint="varshift scan MODEL --report report.json writes one",
        )
    return decode(Report, value)


def fix_to_json(record: FixRecord) -> str:
    """What a fix did as JSON text, ending in a newline."""
    return _text({"schema_version": SCHEMA_VERSION, **Encoder(_ORDER).record(record)})


def lint_to_json(report: LintReport) -> str:
    """What the buffers alone tell as JSON text, ending in a newline."""
    encoder = Encoder(_ORDER)
    value = encoder.record(report)
    value["unknown"] = encoder.holes
    return _text({"schema_version": value.pop("schema_version"), **value})


def diff_to_json(diff: CheckpointDiff | ReportDiff) -> str:
    """Two checkpoints or two reports side by side as JSON text, ending in a newline."""
    from varshift_cli.records import CheckpointDiff  # noqa: PLC0415  check does without

    encoder = Encoder(_ORDER)
    value = encoder.record(diff)
    value["unknown"] = encoder.holes
    kind = "checkpoints" if isinstance(diff, CheckpointDiff) else "reports"
    return _text({"schema_version": value.pop("schema_version"), "kind": kind, **value})


def inspection_to_json(inspection: Inspection) -> str:
    """What an inspection saw as JSON text, ending in a newline."""
    return _text({"schema_version": SCHEMA_VERSION, **Encoder(_ORDER).record(inspection)})


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise ReportError(f"the report is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ReportError("the report is nested too deeply to be one of ours") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _text(value: Json) -> str:
    # All non-ASCII is escaped by json, so that no name in a report can reach a terminal raw; DEL
    # is the one control character that json lets through.
    return _layout(value, 0).replace("\x7f", "\\u007f") + "\n"


def _layout(value: Json, depth: int) -> str:
    flat = json.dumps(value, allow_nan=False)
    pad = "  " * (depth + 1)
    if isinstance(value, dict) and not _fits(flat, depth):
        rows = [
            f"{pad}{json.dumps(key)}: {_layout(each, depth + 1)}" for key, each in value.items()
        ]
        return "{\n" + ",\n".join(rows) + "\n" + pad[2:] + "}"
    if isinstance(value, list) and not _fits(flat, depth) and not _is_numbers(value):
        rows = [pad + _layout(each, depth + 1) for each in value]
        return "[\n" + ",\n".join(rows) + "\n" + pad[2:] + "]"
    return flat


def _fits(flat: str, depth: int) -> bool:
    return len(flat) + 2 * depth <= LINE


def _is_numbers(value: list[Any]) -> bool:
    return all(each is None or isinstance(each, int | float) for each in value)
