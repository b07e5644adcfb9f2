"""One net, whatever file it comes in: the same figures, and a repair that loads as usual."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.nets import ConvNet, OneNet, batches_of, warmed_up
from varshift_cli import Report, recalibrate, scan
from varshift_cli.errors import FixDeclinedError
from varshift_cli.pipeline import fix_checkpoint, scan_checkpoint
from varshift_cli.records import FixRequest, LayerRecord, ScanRequest

SAMPLES, SIZE = 150, 64
ARCH = f"{Path(__file__).parents[1] / 'nets.py'}:OneNet"

WITHOUT_CODE = ("state dict", "legacy", "safetensors")
WITH_CODE = ("module", "legacy module", "scripted", "traced", "exported", "exported at one size")


def save(kind: str, net: nn.Module, x: Tensor, folder: Path) -> Path:
    """The net in a file of its kind, under a suffix that says nothing."""
    path = folder / f"{kind.replace(' ', '_')}.weights"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        if kind in {"state dict", "legacy"}:
            new = kind == "state dict"
            torch.save(net.state_dict(), path, _use_new_zipfile_serialization=new)
        elif kind == "safetensors":
            save_file(net.state_dict(), path)
        elif kind in {"module", "legacy module"}:
            torch.save(net, path, _use_new_zipfile_serialization=kind == "module")
        elif kind == "scripted":
            torch.jit.script(net).save(str(path))
        elif kind == "traced":
            torch.jit.trace(net, x[:2]).save(str(path))
        else:
            torch.export.save(exported(net, x, kind), path.with_suffix(".pt2"))
            path.with_suffix(".pt2").rename(path)
    return path


def exported(net: nn.Module, x: Tensor, kind: str) -> torch.export.ExportedProgram:
    if kind == "exported at one size":
        return torch.export.export(net, (x[:50],))
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    program = torch.export.export(net, (x[:4],), dynamic_shapes=shapes)
    return program.run_decompositions() if kind == "decomposed" else program


def load(kind: str, path: Path) -> dict[str, Tensor]:
    """The file's tensors by the library that wrote it, the ordinary way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "safetensors":
            return load_file(path)
        if kind in {"scripted", "traced"}:
            return dict(torch.jit.load(str(path)).state_dict())
        if "exported" in kind or kind == "decomposed":
            return dict(torch.export.load(path).module().state_dict())
        loaded = torch.load(path, weights_only="module" not in kind)
        return dict(loaded.state_dict() if "module" in kind else loaded)


@dataclass(frozen=True)
class Case:
    net: nn.Module
    x: Tensor
    report: Report
    folder: Path

    def request(self, kind: str, arch: str | None = ARCH) -> ScanRequest:
        path = save(kind, self.net, self.x, self.folder)
        return ScanRequest(
            str(path),
            arch=arch if kind in WITHOUT_CODE else None,
            allow_pickle="module" in kind,
            data=str(self.folder / "calib.npz"),
        )


def case_of(net: nn.Module, folder: Path) -> Case:
    x = torch.randn(SAMPLES, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    np.savez(folder / "calib.npz", x=x.numpy())
    net = warmed_up(net, x)
    return Case(net, x, scan(net, batches_of(x, SIZE)), folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The net in memory, its report by a live scan, and its data in a file."""
    torch.manual_seed(0)
    return case_of(OneNet(), tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def skipping(tmp_path_factory):
    """A net in which a skip connection goes round a dropout."""
    torch.manual_seed(0)
    return case_of(ConvNet(), tmp_path_factory.mktemp("skipping"))


FIGURES = ("shift", "signed", "paper_ratio", "median_ratio", "mean_shift", "worst_ratio", "eps")


def figures(layer: LayerRecord) -> list[float]:
    """All that was measured of a layer."""
    intervals = (layer.shift_interval, layer.signed_interval)
    found = [getattr(layer, name) for name in FIGURES]
    found += [end for each in intervals for end in (each.low, each.high)]
    return [*found, layer.factors.stale, layer.factors.dropout, layer.factors.inherited]


def same(ours: list[float], theirs: list[float]) -> bool:
    return all(
        math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
        for one, other in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("kind", [*WITHOUT_CODE, *WITH_CODE])
def test_same_figures(one, kind):
    """Every figure of every layer is that of the net in memory, to 1e-5."""
    report = scan_checkpoint(one.request(kind))

    if kind == "exported at one size":  # 150 samples fill three batches of 50: the same samples
        assert report.calibration.batch_size == 50
    assert [each.name for each in report.layers] == ["bn1", "bn2", "norm", "bn3"]
    for ours, theirs in zip(report.layers, one.report.layers, strict=True):
        assert same(figures(ours), figures(theirs)), ours.name
        assert len(ours.dropouts) == len(theirs.dropouts)
        assert [link.case for link in ours.dropouts] == [link.case for link in theirs.dropouts]
        assert ours.upstream == theirs.upstream
    assert [each.kind for each in report.dropouts] == ["feature_dropout", "dropout"]
    assert [each.p for each in report.dropouts] == [0.4, 0.4]
    assert report.effect is not None
    assert one.report.effect is not None
    assert math.isclose(report.effect.kl, one.report.effect.kl, rel_tol=1e-4)


def test_masks_matter(one):
    """The control: with another seed the dropout factors do move by more than 1e-5."""
    other = scan(one.net, batches_of(one.x, SIZE), seed=1)

    assert not same(figures(other.layers[-1]), figures(one.report.layers[-1]))


@pytest.mark.parametrize("kind", [*WITHOUT_CODE, *WITH_CODE, "decomposed"])
def test_same_repair(one, kind):
    """A repaired file loads the ordinary way and differs in nothing but BatchNorm buffers."""
    request = one.request(kind)
    output = one.folder / f"repaired_{kind.replace(' ', '_')}"
    eager = copy.deepcopy(one.net)
    recalibrate(eager, batches_of(one.x, SIZE))

    record = fix_checkpoint(FixRequest(request, "recalibrate", output=str(output)))

    before, after = load(kind, Path(request.model)), load(kind, output)
    assert list(before) == list(after)
    for name, value in after.items():
        if name.endswith(("running_mean", "running_var")):
            assert torch.allclose(value, eager.state_dict()[name], rtol=1e-5, atol=1e-6), name
            assert not torch.equal(value, before[name]), name
        else:
            assert torch.equal(value, before[name]), name
    old, new = (
        np.frombuffer(each.read_bytes(), np.uint8) for each in (Path(request.model), output)
    )
    assert len(old) == len(new)
    assert int((old != new).sum()) == record.changed_bytes
    assert record.changed_buffers == 8
    assert record.repair.residual < 1e-5


def test_a_decomposed_program(one):
    """Without its dropout a program shows E and R alone, and says why."""
    report = scan_checkpoint(one.request("decomposed"))

    assert report.dropouts == ()
    for index, (ours, theirs) in enumerate(zip(report.layers, one.report.layers, strict=True)):
        assert math.isclose(ours.signed, theirs.signed, rel_tol=1e-5)
        assert math.isclose(ours.shift, theirs.shift, rel_tol=1e-5)
        assert math.isclose(ours.factors.inherited, theirs.factors.inherited, rel_tol=1e-5)
        assert (ours.factors.stale, ours.factors.dropout, ours.cause) == (None, None, None)
        assert "run_decompositions" in report.unknown[f"layers.{index}.factors.dropout"]
    assert not {"VS101", "VS102", "VS210"} & {each.code for each in report.findings}
    assert "takes dropout out" in report.notes[0]


@pytest.mark.parametrize("kind", ["traced", "exported"])
def test_a_skip_connection_round_a_dropout(skipping, kind):
    """Recorded in eval mode it is recorded wrongly; that is said, and E, R and C still hold."""
    report = scan_checkpoint(skipping.request(kind))

    assert any("a dropout with several users" in note for note in report.notes)
    for ours, theirs in zip(report.layers, skipping.report.layers, strict=True):
        assert math.isclose(ours.shift, theirs.shift, rel_tol=1e-5)
        assert math.isclose(ours.signed, theirs.signed, rel_tol=1e-5)
        assert math.isclose(ours.factors.inherited, theirs.factors.inherited, rel_tol=1e-5)


def test_a_skip_connection_that_is_scripted(skipping):
    """Scripting keeps the program as written, so that nothing is lost and nothing said."""
    report = scan_checkpoint(skipping.request("scripted"))

    assert report.notes == ()
    for ours, theirs in zip(report.layers, skipping.report.layers, strict=True):
        assert same(figures(ours), figures(theirs)), ours.name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_the_file(one, tmp_path, dtype):
    """What is proved is what is written: rounded as the file holds it, and said so."""
    state = {name: value.to(dtype) if value.is_floating_point() else value
             for name, value in one.net.state_dict().items()}  # fmt: skip
    torch.save(state, tmp_path / "half.pt")
    data = str(one.folder / "calib.npz")
    request = ScanRequest(str(tmp_path / "half.pt"), arch=ARCH, data=data)

    record = fix_checkpoint(FixRequest(request, "recalibrate", output=str(tmp_path / "out.pt")))

    assert any("rounded" in note for note in record.notes)
    assert 1e-5 < record.repair.residual < 16 * torch.finfo(dtype).eps
    again = scan_checkpoint(ScanRequest(str(tmp_path / "out.pt"), arch=ARCH, data=data))
    residual = max(each.worst_ratio for each in again.layers)
    assert abs(residual - 1.0) <= record.repair.residual + 1e-6


@pytest.mark.parametrize("kind", ["module", "scripted", "exported"])
def test_a_model_that_computes_in_bf16(one, tmp_path, kind):
    """Arrays are cast to what the model computes in; figures agree with float32 to bf16's few."""
    half = Case(copy.deepcopy(one.net).bfloat16(), one.x.bfloat16(), one.report, tmp_path)
    path = save(kind, half.net, half.x, tmp_path)
    data = str(one.folder / "calib.npz")
    request = ScanRequest(str(path), allow_pickle=kind == "module", data=data)

    report = scan_checkpoint(request)
    record = fix_checkpoint(FixRequest(request, "recalibrate", output=str(tmp_path / "out.pt")))

    assert "x is float32 and was cast to bfloat16" in report.notes
    for ours, theirs in zip(report.layers, one.report.layers, strict=True):
        assert math.isclose(ours.signed, theirs.signed, rel_tol=0.03)
    assert record.repair.residual < 0.1


@pytest.mark.parametrize(
    "kind", ["legacy", "safetensors", *WITH_CODE[:-1]]
)  # one size: batches of 50
def test_fix_chooses_alike_in_every_container(one, kind):
    """fix without a method, as a scan proposes it, comes to the state dict's choice and reason."""

    def reason(container: str) -> str:
        with pytest.raises(FixDeclinedError) as declined:  # an untrained net without labels
            fix_checkpoint(FixRequest(one.request(container), method="auto", dry_run=True))
        return declined.value.message

    assert reason(kind) == reason("state dict")
