"""--memory holds for every pass of a scan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from varshift_cli.measurement import attribution
from varshift_cli.pipeline import scan_checkpoint
from varshift_cli.records import ScanRequest
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
