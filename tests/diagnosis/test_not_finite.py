"""VS408: NaN that comes from weights or activations, not from the buffers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.nets import Mlp, warmed_up
from varshift_cli import Policy, Status, judge_report, recalibrate, scan
from varshift_cli.pipeline import fix_checkpoint
from varshift_cli.records import FixRequest, ScanRequest


def net() -> tuple[Mlp, list[torch.Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(128, 12)
    return warmed_up(Mlp(), x), list(x.split(32))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_are_named_and_the_gate_fails(value: float) -> None:
    """A broken weight: layers behind it have no shift, none is called dead, no gate passes."""
    model, loader = net()
    with torch.no_grad():
        model.body[4].weight[0, 0] = value
    report = scan(model, loader)
    first = report.findings[0]
    assert first.code == "VS408"
    assert first.layers[0] == "body.5"
    assert first.evidence["parameters"] == ["body.4.weight"]
    assert report.layers[1].shift is None
    assert report.layers[1].dead_channels == 0
    judged = judge_report(report, Policy(max_shift=1e9))
    assert judged.verdict.status is Status.FAIL
    assert judged.verdict.worst_layer == "body.5"


def test_buffers_are_named_as_buffers() -> None:
    """A broken buffer is VS202 alone: what is NaN behind it is its doing."""
    model, loader = net()
    model.body[1].running_var[0] = math.nan
    codes = [finding.code for finding in scan(model, loader).findings]
    assert codes[0] == "VS202"
    assert "VS408" not in codes


def test_a_sound_net_has_no_such_finding() -> None:
    """Finite weights and activations: nothing is said."""
    model, loader = net()
    assert "VS408" not in [finding.code for finding in scan(model, loader).findings]


@pytest.mark.parametrize("labels", [torch.arange(128) % 5, torch.zeros(128).long()])
def test_labels_do_not_keep_a_broken_buffer_from_its_repair(
    labels: torch.Tensor, tmp_path: Path
) -> None:
    """Outputs that are NaN have no accuracy to lose: both ways to recalibrate go through."""
    model, loader = net()
    model.body[1].running_var[0] = math.nan
    torch.save(model, tmp_path / "net.pt")
    x = torch.cat(loader)
    np.savez(tmp_path / "calib.npz", x=x.numpy(), y=labels.numpy())
    request = ScanRequest(
        str(tmp_path / "net.pt"), data=str(tmp_path / "calib.npz"), allow_pickle=True
    )
    for method in ("auto", "recalibrate"):
        record = fix_checkpoint(FixRequest(request, method=method, overwrite=True))
        assert record.status == "written"
    recalibrate(model, [(x, labels)])
    assert bool(model(x).isfinite().all())
