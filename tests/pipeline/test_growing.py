from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.nets import Mlp
from varshift_cli.gate import is_settled, judge
from varshift_cli.pipeline import growing, scan_checkpoint, scan_until, scanning
from varshift_cli.pipeline.studies import Study
from varshift_cli.records import ScanRequest, Status

SIZE = 1500


@pytest.fixture
def request_for(tmp_path, monkeypatch):
    """A checkpoint and data on disk, and a request for them."""
    torch.manual_seed(0)
    torch.save(Mlp().state_dict(), tmp_path / "m.pt")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(SIZE, 12)).astype("f4"))
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[1]
    return ScanRequest("m.pt", arch=f"{root / 'nets.py'}:Mlp", data="x.npy", samples=256)


@pytest.fixture
def looks(monkeypatch):
    """What scan_until asked for, look by look."""
    asked = []
    whole = growing.look_at

    def look(inputs, request, progress):
        asked.append(request.samples)
        return whole(inputs, request, progress)

    monkeypatch.setattr(growing, "look_at", look)
    return asked


def gate(threshold):
    return lambda report: is_settled(report, lambda each: judge(each.layers, threshold))


def test_one_look_where_it_is_clear(request_for, looks):
    """A threshold far from every interval is decided at the first look."""
    report = scan_until(gate(50.0), request_for, 65_536)

    assert looks == [256]
    assert report.calibration.samples == 256


def test_doubles_until_the_data_end(request_for, looks):
    """A threshold at the very shift is never decided: the samples double up to all there are."""
    shift = scan_checkpoint(replace(request_for, samples=SIZE))

    report = scan_until(gate(max(each.shift for each in shift.layers)), request_for, 65_536)

    assert looks == [256, 512, 1024, 2048]
    assert report.calibration.samples == SIZE
    assert report.layers == shift.layers


def test_ends_with_the_budget(request_for, looks):
    """No more samples are drawn than the budget allows, and the last look uses all of it."""
    report = scan_until(lambda _: False, request_for, 600)

    assert looks == [256, 512, 600]
    assert report.calibration.samples == 600


def test_stops_as_soon_as_it_is_decided(request_for, looks):
    """A verdict that more samples settle is reached with no more than those."""
    first = scan_checkpoint(request_for)
    looks.clear()
    worst = max(first.layers, key=lambda each: each.shift)
    # Just outside the first interval: decided, but not beyond doubt while more can be drawn.
    threshold = worst.shift_interval.high * 1.0005
    assert judge(first.layers, threshold).status is Status.PASS

    report = scan_until(gate(threshold), request_for, 65_536)

    assert 256 < report.calibration.samples < SIZE
    assert judge(report.layers, threshold).status in {Status.PASS, Status.FAIL}


def test_causes_are_told_apart_once(request_for, looks, monkeypatch):
    """Passes with single dropouts, and those over the training data, are made at the last look."""
    studied, compared = [], []
    run, measure = Study.run, scanning._measure_train_data
    monkeypatch.setattr(
        Study,
        "run",
        lambda self, *rest: (
            studied.append(sum(each.size for each in self.batches)) or run(self, *rest)
        ),
    )
    monkeypatch.setattr(
        scanning,
        "_measure_train_data",
        lambda *given: compared.append(given[2].samples) or measure(*given),
    )

    report = scan_until(lambda _: False, replace(request_for, train_data="x.npy"), 1024)

    assert looks == [256, 512, 1024]
    assert (studied, compared) == ([1024], [1024])
    assert report == scan_checkpoint(replace(request_for, train_data="x.npy", samples=1024))
