"""An assertion for tests: this network's BatchNorm statistics hold in ``eval()``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from varshift_cli.errors import ReportError
from varshift_cli.records import Policy, Report, Status

if TYPE_CHECKING:
    from torch import nn


class VarianceShiftError(AssertionError):
    """A layer is beyond the threshold, or too little is known to tell; the report is attached."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def assert_variance_shift(
    model: nn.Module,
    batches: Iterable[Any],
    max_shift: float | None = 1.25,
    *,
    baseline: Report | str | PathLike[str] | None = None,
    policy: Policy | None = None,
    allow_inconclusive: bool = False,
    samples: int | None = 1024,
    seed: int = 0,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> Report:
    """Scan a live model and fail, with the table, if a layer is beyond the threshold.

    Args:
        model: Any ``nn.Module``; handed back unchanged.
        batches: Calibration batches, as :func:`varshift_cli.scan` takes them.
        max_shift: The largest ``shift`` allowed, a ratio >= 1, held against the whole 95 %
            interval of each layer; ``None`` leaves it to ``policy`` or ``baseline``.
        baseline: An earlier report, or the path of one as JSON: then only what got worse fails.
        policy: Thresholds by layer, suppressions, and thresholds on accuracy.
        allow_inconclusive: Let an undecided verdict pass.
        samples: No more than this many, the first that come; ``None`` takes all.
        seed: Of dropout masks and of the bootstrap.
        forward: ``forward(model, batch) -> outputs`` for models that are called otherwise.

    Returns:
        The report, with its verdict.

    Raises:
        VarianceShiftError: An ``AssertionError``: a layer is beyond the threshold, the verdict is
            undecided, or nothing was checked.
        NothingToMeasureError: The model has no BatchNorm layer with running statistics.
        DataError: Fewer than two samples, or non-finite input.
        ReportError: The baseline cannot be read.
    """
    __tracebackhide__ = True
    # Imported here, so that a test session that never gets here does not pay for them.
    from varshift_cli.gate import judge_report
    from varshift_cli.pipeline import scan
    from varshift_cli.report import render_table

    earlier, source = _baseline(baseline)
    report = judge_report(
        scan(model, batches, samples=samples, seed=seed, forward=forward),
        policy,
        max_shift=max_shift,
        baseline=earlier,
        baseline_source=source,
    )
    status = report.verdict.status
    if status is Status.PASS or (status is Status.INCONCLUSIVE and allow_inconclusive):
        return report
    if status is Status.NOT_GATED and report.verdict.unchecked is None:
        return report
    raise VarianceShiftError(f"variance shift\n\n{render_table(report)}", report)


def _baseline(
    baseline: Report | str | PathLike[str] | None,
) -> tuple[Report | None, str | None]:
    if baseline is None or isinstance(baseline, Report):
        return baseline, None
    from varshift_cli.report import from_json

    path = Path(baseline)
    try:
        return from_json(path.read_text(encoding="utf-8")), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(
            f"baseline {path} cannot be read: {error}",
            hint="write it from a good state: Path(...).write_text(to_json(report))",
        ) from error
