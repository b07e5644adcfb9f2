"""The gate as it was asked for: thresholds, exceptions and a baseline, from both places."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from varshift_cli.cli import output
from varshift_cli.cli.saved import read_report
from varshift_cli.config import Config
from varshift_cli.errors import NothingToMeasureError, ReportError, UsageError
from varshift_cli.nearby import file_hint
from varshift_cli.records import Policy, Report

if TYPE_CHECKING:
    from varshift_cli.records import ScanRequest


@dataclass(frozen=True, slots=True)
class Gate:
    """What a report is held against."""

    policy: Policy
    baseline: Report | None
    source: str | None
    """The baseline's file."""

    @property
    def is_set(self) -> bool:
        """Whether anything can fail."""
        return self.policy.gates or self.baseline is not None

    @property
    def reads(self) -> dict[Path, str]:
        """The baseline, as :func:`varshift_cli.cli.output.report_files` wants it.

        Written over, it would let pass the next time what failed now.
        """
        return {} if self.source is None else {Path(self.source).resolve(): "the baseline"}

    def check(self, request: ScanRequest) -> None:
        """Refuse a threshold for a figure that the scan will not make, before the work.

        Raises:
            UsageError: min-metric without a metric.
        """
        if self.policy.min_metric is not None and request.metric is None:
            raise UsageError(
                "min-metric is set, but there is no --metric to compare with it",
                hint="give --metric file.py:f, f(outputs, labels) -> higher is better",
            )

    def judged(self, report: Report) -> Report:
        """The report with its verdict.

        Raises:
            NothingToMeasureError: No layer has a shift, and no finding decides without one.
        """
        from varshift_cli.gate import judge_report

        return judge_report(
            report, self.policy, baseline=self.baseline, baseline_source=self.source
        )

    def settled(self, report: Report) -> bool:
        """Whether more samples would hardly change the verdict."""
        from varshift_cli.gate import is_settled

        return is_settled(report, lambda each: self.judged(each).verdict)


def settle_gate(
    config: Config,
    *,
    max_shift: float | None,
    baseline: str | None,
    otherwise: float | None = None,
) -> Gate:
    """Let the command line win over the file; read the baseline, before any work.

    Args:
        config: What the file says.
        max_shift: What the command line says.
        baseline: Likewise; an empty name sets the file's baseline aside.
        otherwise: The threshold where neither says one.

    Raises:
        UsageError: A threshold is out of range.
        ReportError: The baseline cannot be read.
    """
    from varshift_cli.gate import check_policy

    given = (max_shift, config.max_shift, otherwise)
    threshold = next((each for each in given if each is not None), None)
    policy = replace(config.policy, max_shift=threshold)
    check_policy(policy)
    path = config.baseline if baseline is None else baseline
    return Gate(policy, _read_baseline(path) if path else None, path or None)


def exit_by_verdict(report: Report) -> NoReturn:
    """Exit by the code of a report's verdict; where nothing was measured, say so on stderr too.

    A report on stdout may be JSON for a machine, and is nothing that a person reads.
    """
    from varshift_cli.gate import exit_code

    code = exit_code(report.verdict)
    if code == NothingToMeasureError.exit_code:
        output.complain(report.verdict.unchecked or _unmeasured(report), None)
    raise typer.Exit(code)


def _unmeasured(report: Report) -> str:
    many = len(report.layers)
    reasons = [report.unknown.get(f"layers.{index}.shift") for index in range(many)]
    why = ", or ".join(dict.fromkeys(each for each in reasons if each is not None))
    layers = f"none of the {many} BatchNorm layers has" if many > 1 else "no BatchNorm layer has"
    return f"nothing to measure: {layers} a shift" + (f": {why}" if why else "")


def _read_baseline(path: str) -> Report:
    if path == "-":
        raise UsageError("--baseline reads a file, not stdin")
    if not Path(path).exists():
        make = f"make it from a good state: varshift scan MODEL --baseline= --report {path}"
        raise ReportError(
            f"there is no baseline {path}",
            hint="\n".join(each for each in (file_hint(path), make) if each is not None),
        )
    try:
        return read_report(path)
    except ReportError as error:
        raise ReportError(f"baseline {path}: {error.message}", hint=error.hint) from error
