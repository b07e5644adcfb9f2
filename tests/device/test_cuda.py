"""On a CUDA device: the figures of the CPU, the same masks, exact repairs, nothing left behind."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.architectures import images
from tests.architectures.test_architectures import (
    BLOCKS,
    EVERY,
    SAMPLES,
    by_hand,
    cut,
    trained,
)
from tests.nets import ConvNet, batches_of
from varshift_cli import recalibrate, scan
from varshift_cli.instrument import find_batch_norms, noise
from varshift_cli.records import Report, SilentProgress
from varshift_cli.remedies import Workload, corrected, gather_populations

pytestmark = pytest.mark.gpu

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Convolutions in float32 proper: TF32, which torch takes by itself, keeps three digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def on_cuda(batches: list[Any]) -> list[Any]:
    return [
        {name: value.cuda() for name, value in each.items()}
        if isinstance(each, dict)
        else each.cuda()
        for each in batches
    ]


def ready(name: str) -> tuple[nn.Module, list[Any]]:
    """A trained architecture, on the CPU, and its data."""
    build, draw = EVERY[name]
    torch.manual_seed(0)
    model, batches = build(), cut(draw(SAMPLES), 16)
    trained(model, batches)
    return model, batches


def figures(report: Report) -> dict[str, list[float | None]]:
    return {
        layer.name: [layer.shift, layer.factors.dropout, layer.factors.stale, layer.mean_shift]
        for layer in report.layers
    }


def assert_near(one: Report, other: Report, rel: float) -> None:
    assert figures(one).keys() == figures(other).keys()
    for name, found in figures(one).items():
        for value, expected in zip(found, figures(other)[name], strict=True):
            assert (value is None) == (expected is None), name
            if value is not None and expected is not None:
                assert value == pytest.approx(expected, rel=rel, abs=rel), name


@pytest.mark.parametrize("name", EVERY)
def test_a_scan_gives_the_figures_of_the_cpu(name: str) -> None:
    """Every architecture, data on the CPU as a loader gives it: shift and factors to 0.2 %."""
    model, batches = ready(name)
    kinds = [kind for kind in BLOCKS if any(isinstance(m, kind) for m in model.modules())]
    here = scan(model, batches, noise=kinds)
    there = scan(copy.deepcopy(model).cuda(), batches, noise=kinds)
    assert_near(there, here, 2e-3)
    assert {each.code for each in there.findings} == {each.code for each in here.findings}


@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("name", EVERY)
def test_repair_by_hand(name: str) -> None:
    """After the repair plain hooks find it in the model itself, on the device."""
    model, batches = ready(name)
    model = model.cuda()
    before = by_hand(copy.deepcopy(model), on_cuda(batches))
    record = recalibrate(model, batches, force=True)
    assert record.residual < 1e-4
    left = by_hand(model, on_cuda(batches))
    assert max(before.values()) > 0.05
    assert max(left.values()) < 1e-3


@pytest.mark.parametrize(
    "kind",
    [
        *(noise.DROPOUT, noise.FEATURE_DROPOUT, noise.ALPHA_DROPOUT, noise.FEATURE_ALPHA_DROPOUT),
        *(noise.GAUSSIAN_DROPOUT, noise.UOUT),
    ],
    ids=lambda kind: kind.name,
)
def test_masks_are_those_of_the_cpu(kind: noise.NoiseKind) -> None:
    """The same sample meets the same mask on any device."""
    x = torch.randn(16, 5, 9, 7)
    samples = torch.randint(-(2**62), 2**62, (16,))
    here = noise.apply_noise(kind, x, 0.3, samples, 77)
    there = noise.apply_noise(kind, x.cuda(), 0.3, samples, 77)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
    assert torch.equal(there.cpu() == 0.0, here == 0.0)


@pytest.mark.parametrize("name", ["CRNN", "transformer with BN"])
def test_noise_within_kernels_belongs_to_samples_too(name: str) -> None:
    """Dropout between layers of an RNN and in attention: the same at any batch size."""
    build, draw = EVERY[name]
    torch.manual_seed(0)
    model, drawn = build(), draw(SAMPLES)
    trained(model, cut(drawn, 16))
    model = model.cuda()
    assert_near(scan(model, cut(drawn, 16)), scan(model, cut(drawn, 6)), 1e-3)


def test_the_model_and_the_generators_are_given_back() -> None:
    """Flags, buffers and where they lie, and the random state of the device."""
    model = ConvNet().cuda()
    for index, module in enumerate(model.modules()):
        module.training = index % 3 == 0
    batches = list(torch.randn(40, 3, 6, 6).split(8))
    torch.cuda.manual_seed(5)
    torch.randn(3, device="cuda")

    def state() -> list[Any]:
        return [
            [module.training for module in model.modules()],
            [buffer.data_ptr() for buffer in model.buffers()],
            [buffer.cpu().tolist() for buffer in model.buffers()],
            torch.cuda.get_rng_state().tolist(),
            torch.get_rng_state().tolist(),
        ]

    before = state()
    scan(model, batches)
    assert state() == before


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_correction_leaves_alone_what_dropout_does_not_reach(p: float) -> None:
    """Not a bit of it: kernels that add in another order each time leave no trace."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 6, 6)
    model = ConvNet(p).train()
    for part in x.split(16):
        model(part)
    model = model.eval().cuda()
    catalogue = find_batch_norms(model)
    work = Workload(model, catalogue, batches_of(x, 16), (), SilentProgress())
    written = corrected(gather_populations(work, with_train=True), catalogue).populations
    assert set(written) == ({"bn2", "bn3"} if p else set())


@pytest.mark.parametrize("how", ["half", "bfloat16", "autocast", "channels last", "tf32"])
def test_precisions_and_layouts(how: str) -> None:
    """As a user deploys it; figures as those of float32 within what the precision leaves."""
    model, batches = ready("ResNet basic")
    model = model.cuda()
    plain = scan(model, batches)
    forward = None
    if how in {"half", "bfloat16"}:
        dtype = torch.float16 if how == "half" else torch.bfloat16
        model = model.to(dtype)
        batches = [each.to(dtype) for each in batches]
    elif how == "autocast":

        def forward(model: nn.Module, batch: Tensor) -> Tensor:
            with torch.autocast("cuda", torch.float16):
                out: Tensor = model(batch)
                return out

    elif how == "channels last":
        model = model.to(memory_format=torch.channels_last)
    else:
        torch.backends.cudnn.allow_tf32 = True
    found = scan(model, batches, forward=forward)
    assert_near(found, plain, 2e-3 if how == "channels last" else 0.1)


def test_windows_by_the_memory_of_the_device() -> None:
    """What a repair takes stays within the budget, a batch and the model's own workspace."""
    torch.manual_seed(0)
    model = images.wide_resnet().eval().cuda()
    batches = batches_of(torch.randn(256, 3, 64, 64), 16)
    catalogue = find_batch_norms(model)

    def peak(memory: int) -> tuple[int, int]:
        work = Workload(model, catalogue, batches, (), SilentProgress(), memory=memory)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = gather_populations(work, with_train=True)
        return torch.cuda.max_memory_allocated() - before, found.procedure.windows

    with torch.inference_mode():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model(batches[0].args[0].cuda())
        one = torch.cuda.max_memory_allocated() - before
    whole, windows = peak(1 << 34)
    assert windows == 1
    for share in (2, 5):
        used, windows = peak(whole // share)
        assert windows > 1
        assert used <= whole // share + 2 * one


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "varshift_cli", *arguments],
        capture_output=True,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_scan_and_fix_on_the_command_line(tmp_path: Path) -> None:
    """The shipped example: the same report, a file whose buffers agree, and nothing more to do."""
    shipped = (*("--arch", f"{DIGITS / 'model.py'}:build", "--data", str(DIGITS / "calib.npz")),)
    reports = []
    for device in ("cpu", "cuda"):
        target = tmp_path / f"{device}.json"
        code, output = run(
            "scan", str(DIGITS / "model.pt"), *shipped, "--device", device, "--report", str(target)
        )  # fmt: skip
        assert code == 0, output
        reports.append(json.loads(target.read_text("utf-8")))
    here, there = reports
    assert [layer["name"] for layer in here["layers"]] == [
        layer["name"] for layer in there["layers"]
    ]
    for one, other in zip(here["layers"], there["layers"], strict=True):
        assert one["shift"] == pytest.approx(other["shift"], rel=1e-3)
    files = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.pt"
        code, output = run(
            "fix", str(DIGITS / "model.pt"), *shipped, "--recalibrate", "--device", device,
            "--output", str(out),
        )  # fmt: skip
        assert code == 0, output
        files[device] = torch.load(out, weights_only=True)["model"]
    for key, value in files["cpu"].items():
        other = files["cuda"][key]
        assert other.device.type == "cpu"
        if "running" in key:
            torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-5)
        else:
            assert torch.equal(other, value)
    code, output = run("fix", str(tmp_path / "cuda.pt"), *shipped, "--device", "cuda")
    assert code == 0
    assert "nothing to repair" in output


def test_a_device_without_enough_memory_is_an_error_that_says_what_to_try() -> None:
    """No traceback: the layer, the batch, and a way out."""

    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            free = torch.cuda.mem_get_info()[0]
            torch.empty(math.ceil(free * 1.2), dtype=torch.uint8, device=x.device)
            out: Tensor = self.bn(x)
            return out

    with pytest.raises(Exception, match="out of memory") as caught:
        scan(Hungry().cuda(), list(torch.randn(32, 4).split(8)))
    assert type(caught.value).__name__ == "ForwardError"
