"""The shipped example, end to end: what README promises of it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from varshift_cli import UsageError
from varshift_cli.loading import build_model, open_checkpoint
from varshift_cli.pipeline import fix_checkpoint, scan_checkpoint
from varshift_cli.records import Case, Describe, FixRequest, Level, ScanRequest

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = Path(shutil.copytree(DIGITS, tmp_path / "digits"))
    monkeypatch.chdir(copied)
    return copied


def request(model: str, **options: object) -> ScanRequest:
    return ScanRequest(model, arch="model.py:build", data="calib.npz", **options)  # type: ignore[arg-type]


def load(path: Path) -> nn.Module:
    """The checkpoint's model, by torch's own loader."""
    built = build_model(
        "model.py:build", (), open_checkpoint(path).state_dict(), search_dirs=[path.parent]
    )
    built.model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return built.model.eval()


def eval_shifts(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Worst channel's variance ratio of every BN in eval(), by plain hooks, in float64."""
    caught: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _m, args, name=name: caught.__setitem__(name, args[0].double())
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    shifts = {}
    for name, value in caught.items():
        bn = model.get_submodule(name)
        var = value.movedim(1, -1).flatten(0, -2).var(0)
        ratio = ((var + bn.eps) / (bn.running_var.double() + bn.eps)).log().abs()
        shifts[name] = math.exp(float(ratio.max()))
    return shifts


def test_every_hit_layer_is_found_with_its_dropout(folder: Path) -> None:
    """All 12 BN straight behind dropout: factor below 0.7, dropout named with file and line."""
    report = scan_checkpoint(request("model.pt"))
    assert len(report.layers) == 37
    hit = [layer for layer in report.layers if layer.name.endswith("bn3")]
    assert len(hit) == 12
    for layer in hit:
        (link,) = layer.dropouts
        assert link.case is Case.STRAIGHT
        assert link.name == layer.name.replace("bn3", "drop")
        assert layer.factors.dropout is not None
        assert layer.factors.dropout < 0.7
        assert layer.cause == "dropout"
    for dropout in report.dropouts:
        assert dropout.location is not None
        file, line = dropout.location.split(":")
        assert "self.drop(out)" in (folder / file).read_text().splitlines()[int(line) - 1]
        assert (dropout.kind, dropout.p) == ("dropout", 0.5)
    assert report.findings[0].code == "VS101"
    assert set(report.findings[0].layers) == {layer.name for layer in hit}
    assert report.buffers.describe is Describe.TRAIN


def test_the_dropout_free_twin_is_healthy(folder: Path) -> None:
    """The twin: every dropout factor exactly 1, no shift above 1.05, nothing found."""
    report = scan_checkpoint(request("no_dropout.pt", arch_args=("where=none",)))
    assert report.calibration.samples == 1000
    assert {layer.factors.dropout for layer in report.layers} == {1.0}
    assert max(layer.shift or 9.0 for layer in report.layers) <= 1.05
    assert {layer.level for layer in report.layers} == {Level.FINE}
    assert report.findings == ()


def test_figures_are_repeatable_and_leave_no_trace(folder: Path) -> None:
    """Two scans give equal reports; every file is as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    first, second = scan_checkpoint(request("model.pt")), scan_checkpoint(request("model.pt"))
    assert first == second
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def fixed(folder: Path, size: int) -> Path:
    output = folder / f"fixed{size}.pt"
    fix_checkpoint(FixRequest(request("model.pt", batch_size=size), output=str(output)))
    return output


def test_repair_is_exact_at_any_batch_size(folder: Path) -> None:
    """Batch size 1, 2, 8 and 64: |shift - 1| below 1e-5 by plain hooks; equal buffers to 1e-6."""
    data = dict(np.load("calib.npz"))
    np.savez("calib.npz", x=data["x"][:200], y=data["y"][:200])
    x = torch.from_numpy(data["x"][:200])
    buffers = []
    for size in (1, 2, 8, 64):
        model = load(fixed(folder, size))
        assert max(eval_shifts(model, x).values()) - 1 < 1e-5
        buffers.append(dict(model.named_buffers()))
    for other in buffers[1:]:
        for name, value in buffers[0].items():
            torch.testing.assert_close(value, other[name], rtol=1e-6, atol=1e-6)


def test_only_batchnorm_bytes_change(folder: Path) -> None:
    """Optimizer, epoch and weights are kept; differing bytes lie in BN buffers and checksums."""
    path = fixed(folder, 64)
    assert scan_checkpoint(request(path.name)).buffers.describe is Describe.CLEAN
    old, new = torch.load("model.pt"), torch.load(path)
    assert old.keys() == new.keys()
    assert (old["epoch"], old["seed"]) == (new["epoch"], new["seed"])
    for index, state in old["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(new["optimizer"]["state"][index][name])
            )
    changed = {k for k in old["model"] if not torch.equal(old["model"][k], new["model"][k])}
    assert changed == {
        name for name in old["model"] if name.endswith(("running_mean", "running_var"))
    }
    before, after = Path("model.pt").read_bytes(), path.read_bytes()
    assert len(before) == len(after)
    differing = sum(a != b for a, b in zip(before, after, strict=True))
    values = sum(old["model"][name].numel() for name in changed)
    # Four bytes a value, and a CRC-32 in the local header and in the directory of each record.
    assert 0 < differing <= 4 * values + 12 * len(changed)


def test_accuracy_on_held_out_images(folder: Path) -> None:
    """Held-out accuracy rises by at least 5 points, and the interval of the gain excludes 0."""
    record = fix_checkpoint(
        FixRequest(request("model.pt"), output="fixed.pt", holdout="heldout.npz")
    )
    held_out = next(score for score in record.scores if score.data == "heldout.npz")
    assert held_out.samples == 797
    assert record.holdout == "heldout.npz  797 samples of x, labels y"
    inside = [score.data for score in record.scores if score.in_sample]
    assert inside == ["calib.npz", "calib.npz"]
    assert held_out.after - held_out.before >= 0.05
    assert held_out.difference is not None
    assert held_out.difference.low > 0
    data = np.load("heldout.npz")
    with torch.no_grad():
        logits = load(folder / "fixed.pt")(torch.from_numpy(data["x"]))
    accuracy = float((logits.argmax(1) == torch.from_numpy(data["y"])).double().mean())
    assert accuracy == pytest.approx(held_out.after, abs=1e-12)


def test_the_calibration_data_are_not_held_out(folder: Path) -> None:
    """Judged on its own samples a repair would look better than it is."""
    with pytest.raises(UsageError, match=r"--holdout calib\.npz is --data itself"):
        fix_checkpoint(FixRequest(request("model.pt"), output="fixed.pt", holdout="calib.npz"))
    assert not Path("fixed.pt").exists()


def test_remedies_attribution_and_prediction(folder: Path) -> None:
    """Recalibration first, gaussian last; each bn3's own dropout leads, and is predicted."""
    report = scan_checkpoint(request("model.pt"))
    remedies = report.remedies["VS101"]
    assert remedies[0].how == "varshift fix model.pt --recalibrate"
    assert [each.needs_training for each in remedies] == [False, False, *[True] * 5]
    worst = {each.title.partition(" ")[0]: each.worst_shift for each in remedies}
    assert worst["Recalibrate:"] == pytest.approx(1.0, abs=1e-4)
    assert worst["Move"] == pytest.approx(1.0, abs=1e-6)
    assert (worst["Correct:"] or 9) < 1.1
    assert (worst["Gaussian"] or 0) > 3
    assert "model.py:37 (12 dropouts)" in remedies[2].how
    for layer in report.layers:
        if layer.attribution is not None:
            assert layer.factors.dropout is not None
            assert layer.attribution_residual is not None
            total = math.fsum(share.share for share in layer.attribution)
            assert total + layer.attribution_residual == pytest.approx(
                math.log(layer.factors.dropout), abs=1e-6
            )
        if layer.name.endswith("bn3"):
            own = layer.name.replace("bn3", "drop")
            assert layer.attribution is not None
            assert layer.attribution[0].name == own
            (prediction,) = layer.prediction or ()
            assert prediction.name == own
            assert prediction.predicted == pytest.approx(prediction.measured, rel=0.05)
            assert prediction.delta == pytest.approx(prediction.predicted, rel=0.01)
