"""Everything public, used as a typed project would: checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import varshift_cli
from varshift_cli import (
    BaselineRecord,
    CheckpointRecord,
    DataError,
    DropoutChange,
    Effect,
    Factors,
    Finding,
    FindingLevel,
    FixDeclinedError,
    GaussianDropout,
    Interval,
    LayerRecord,
    LayerRepair,
    LayerRule,
    LayerVerdict,
    Level,
    Outcome,
    Policy,
    Remedy,
    RepairRecord,
    Report,
    ShiftMonitor,
    ShiftPoint,
    Skipped,
    Status,
    Suppression,
    Uout,
    VarianceShiftError,
    VarshiftError,
    Verdict,
    assert_variance_shift,
    correct,
    from_json,
    judge_report,
    move_dropout,
    recalibrate,
    render,
    scan,
    swap_dropout,
    to_json,
)

assert_type(varshift_cli.__version__, str)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(torch.randn(64, 3)), batch_size=16)


def scanned(model: nn.Module) -> Report:
    report = scan(model, loader(), seed=1, channels=True)
    assert_type(report.layers, tuple[LayerRecord, ...])
    assert_type(report.skipped, tuple[Skipped, ...])
    assert_type(report.findings, tuple[Finding, ...])
    assert_type(report.remedies, Mapping[str, tuple[Remedy, ...]])
    assert_type(report.effect, Effect | None)
    assert_type(report.verdict, Verdict)
    assert_type(report.checkpoint, CheckpointRecord)
    for layer in report.layers:
        assert_type(layer.shift, float | None)
        assert_type(layer.shift_interval, Interval | None)
        assert_type(layer.level, Level | None)
        assert_type(layer.factors, Factors)
        assert_type(layer.factors.dropout, float | None)
    for finding in report.findings:
        assert_type(finding.level, FindingLevel)
    return report


def with_own_forward(model: nn.Module, tensors: Sequence[Tensor]) -> Report:
    def forward(model: nn.Module, batch: object) -> object:
        return model(batch)

    return scan(model, tensors, forward=forward)


def repaired(model: nn.Module) -> float:
    try:
        record = recalibrate(model, loader())
    except FixDeclinedError as error:
        assert_type(error.hint, str | None)
        raise
    except DataError:
        return 0.0
    except VarshiftError as error:
        assert_type(error.message, str)
        raise
    assert_type(record, RepairRecord)
    assert_type(record.layers, tuple[LayerRepair, ...])
    assert_type(correct(model, loader()), RepairRecord)
    return record.residual


def gated(report: Report, earlier: Path) -> int | None:
    baseline = from_json(earlier.read_text("utf-8"))
    assert_type(baseline, Report)
    policy = Policy(
        max_shift=1.25,
        layers=(LayerRule("head.*", 1.5),),
        max_changed_predictions=0.02,
        min_accuracy=0.9,
        suppressions=(Suppression("cut off", pattern="aux.*"),),
    )
    judged = judge_report(report, policy, baseline=baseline, baseline_source=str(earlier))
    assert_type(judged.verdict.status, Status)
    assert_type(judged.verdict.baseline, BaselineRecord | None)
    assert_type(judged.verdict.layers, tuple[LayerVerdict, ...])
    assert_type(judged.verdict.layers[0].outcome, Outcome)
    assert_type(judge_report(report, max_shift=1.25), Report)
    return judged.verdict.samples_needed


def rendered(report: Report) -> str:
    assert_type(to_json(report), str)
    return render(report, "json") + str(report)


def asserted(model: nn.Module) -> Report:
    try:
        return assert_variance_shift(model, loader(), max_shift=1.25, baseline="base.json")
    except VarianceShiftError as error:
        return error.report


def monitored(model: nn.Module) -> list[ShiftPoint]:
    def log(tag: str, value: float, epoch: int) -> None:
        """As SummaryWriter.add_scalar."""

    monitor = ShiftMonitor(model, loader(), every=2, log=log)
    assert_type(monitor.step(), ShiftPoint | None)
    assert_type(monitor.report, Report | None)
    return monitor.history


def built() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), Uout(0.1), nn.BatchNorm1d(3), GaussianDropout(0.1))


def rebuilt(model: nn.Module) -> nn.Module:
    assert_type(move_dropout(model, p=0.2, before="fc"), tuple[DropoutChange, ...])
    for change in swap_dropout(model, Uout(0.1), names=["drop"]):
        assert_type(change.name, str)
    return model
