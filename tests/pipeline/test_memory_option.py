"""--memory holds for every pass of a scan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from varshift_cli.measurement import attribution
from varshift_cli.pipeline import fix_checkpoint, measured, scan_checkpoint
from varshift_cli.records import FixRequest, ScanRequest
from varshift_cli.remedies import trials

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def test_every_pass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the scan, of the attribution, and of the remedies that are tried."""
    measuring = sys.modules["varshift_cli.measurement.measure"]

    told: dict[str, set[Any]] = {}
    for room in (measuring, attribution, trials):
        plan_passes = room.plan_passes

        def noting(*args: Any, room: Any = room, real: Any = plan_passes) -> Any:
            told.setdefault(room.__name__.rpartition(".")[2], set()).add(args[3])
            return real(*args)

        monkeypatch.setattr(room, "plan_passes", noting)
    scan_checkpoint(
        ScanRequest(
            str(DIGITS / "model.pt"),
            arch=f"{DIGITS / 'model.py'}:build",
            data=str(DIGITS / "calib.npz"),
            samples=64,
            memory="3M",
        )
    )
    assert told == {"measure": {3 << 20}, "attribution": {3 << 20}, "trials": {3 << 20}}


def test_a_repair_in_windows_runs_no_pass_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The scan went through in the same windows: its statistics are those to be written."""

    def again(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("passes were run again")

    scan = ScanRequest(
        str(DIGITS / "model.pt"),
        arch=f"{DIGITS / 'model.py'}:build",
        data=str(DIGITS / "calib.npz"),
        samples=512,
        memory="300K",
    )
    monkeypatch.setattr(measured, "gather_populations", again)
    found = fix_checkpoint(FixRequest(scan, method="recalibrate", output=str(tmp_path / "new.pt")))
    assert found.repair is not None
    assert found.repair.windows > 1
