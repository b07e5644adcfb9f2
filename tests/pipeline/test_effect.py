"""What recalibration changes in the user's own figures, and whether BN is to blame at all."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.nets import Mlp, warmed_up
from varshift_cli import FixDeclinedError, UsageError, recalibrate, scan
from varshift_cli.pipeline import fix_checkpoint, scan_checkpoint
from varshift_cli.records import FixRequest, Interval, ScanRequest
from varshift_cli.report.wording import effect_sentences
from varshift_cli.statistics.leaving_out import GROUPS

CODE = """
import torch
from tests.nets import Mlp

def margin(outputs, labels):
    return outputs[:, 0].mean() - labels.float().mean()

def broken(outputs, labels):
    raise ZeroDivisionError("no positives")

def counted(outputs, labels):
    with open("calls", "a") as calls:
        print("one", file=calls)
    return margin(outputs, labels)

def nothing(outputs, labels):
    return float("nan")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shifted MLP, data with labels that are no classes, and a file of metrics."""
    torch.manual_seed(0)
    x = torch.randn(200, 12)
    model = warmed_up(Mlp(), x)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    np.savez(tmp_path / "calib.npz", x=x.numpy(), y=torch.rand(200).numpy())
    (tmp_path / "code.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(**options: object) -> ScanRequest:
    return ScanRequest("m.pt", arch="code.py:Mlp", data="calib.npz", **options)  # type: ignore[arg-type]


def by_hand(x: torch.Tensor, y: torch.Tensor, *, repaired: bool) -> float:
    """The metric of the net in eval mode, by a plain forward."""
    model = Mlp()
    model.load_state_dict(torch.load("m.pt", weights_only=True))
    if repaired:
        recalibrate(model, x)
    with torch.no_grad():
        return float(model.eval()(x)[:, 0].mean() - y.float().mean())


def test_metric_in_every_regime(folder: Path) -> None:
    """--metric is called with all outputs and labels: as it is and recalibrated, as by hand."""
    effect = scan_checkpoint(request(metric="code.py:margin")).effect
    assert effect is not None
    assert effect.metric is not None
    data = np.load("calib.npz")
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    assert effect.metric_name == "margin"
    assert effect.metric.eval == pytest.approx(by_hand(x, y, repaired=False), abs=1e-5)
    assert effect.metric.recalibrated == pytest.approx(by_hand(x, y, repaired=True), abs=1e-5)
    assert effect.metric.train not in {None, effect.metric.eval}


def test_metric_judges_a_fix(folder: Path) -> None:
    """With a metric the scores of a fix are the metric's, with an interval, on held-out parts."""
    record = fix_checkpoint(
        FixRequest(request(metric="code.py:margin"), method="recalibrate", force=True, dry_run=True)
    )
    first = record.scores[0]
    assert (first.name, first.data) == ("margin", "held-out fifths")
    assert first.difference is not None
    assert first.difference.low <= first.after - first.before <= first.difference.high


def calls_of_metric() -> int:
    calls = Path("calls")
    number = len(calls.read_text(encoding="utf-8").splitlines())
    calls.unlink()
    return number


def test_a_metric_may_be_slow(folder: Path) -> None:
    """Called once for each regime, and once more for each group left out, before and after."""
    effect = scan_checkpoint(request(metric="code.py:counted")).effect
    assert calls_of_metric() <= 3 + 1 + 2 * GROUPS
    assert effect is not None
    assert effect.metric is not None
    assert effect.gain is not None
    gain = effect.metric.recalibrated - effect.metric.eval
    assert effect.gain.low < gain < effect.gain.high
    assert effect.metric_interval is not None
    assert effect.metric_interval.low < effect.metric.eval < effect.metric_interval.high
    again = scan_checkpoint(request(metric="code.py:counted")).effect
    assert again == effect


def test_a_fix_calls_a_slow_metric_seldom(folder: Path) -> None:
    """Two outputs for the scan, three on held-out parts, each once and without each group."""
    fix = FixRequest(request(metric="code.py:counted"), method="auto", dry_run=True)
    with suppress(FixDeclinedError):
        fix_checkpoint(fix)
    assert calls_of_metric() <= 5 * (1 + GROUPS) + 1


@pytest.mark.parametrize(
    ("name", "message"), [("broken", "ZeroDivisionError: no positives"), ("nothing", "NaN")]
)
def test_a_metric_that_fails_is_an_error_of_usage(folder: Path, name: str, message: str) -> None:
    """A metric that raises or returns NaN is named, with what it said."""
    with pytest.raises(UsageError, match=f"--metric {name}.*{message}"):
        scan_checkpoint(request(metric=f"code.py:{name}"))


def labelled() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(1)
    x = torch.randn(300, 12)
    model = warmed_up(Mlp(p=0.0), x, steps=200, size=300)
    return model, [(x, torch.randint(4, (300,)))]


def test_bn_not_guilty() -> None:
    """Every shift fine and train mode no better: the report acquits BN; else it does not."""
    model, batches = labelled()
    report = scan(model, batches)
    assert {layer.level for layer in report.layers} == {"fine"}
    assert any("BN not guilty" in sentence for sentence in effect_sentences(report))
    assert report.effect is not None
    better = replace(report, effect=replace(report.effect, train_gain=Interval(0.01, 0.05)))
    assert not any("not guilty" in sentence for sentence in effect_sentences(better))
    shifted = scan(warmed_up(Mlp(), batches[0][0]), batches)
    assert not any("not guilty" in sentence for sentence in effect_sentences(shifted))
