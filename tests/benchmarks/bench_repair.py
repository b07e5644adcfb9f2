"""What the repairs cost, how much memory they take, and how exact they are, beside their peers.

    python tests/benchmarks/bench_repair.py [--rounds 5] [--only speed|memory|exactness]
        [--device cuda]

``--device`` is that of the speeds.

Speed: medians over rounds of each pass's time divided by that of a bare forward of the same
batches, and by ``update_bn``, all taking turns within a round, on a net of ResNet-18's size.

Memory: the peak of the resident set in a process of its own, less what model, data and a bare
forward of one batch had taken before, beside ``--memory``.

Exactness: the shipped digits net, calibrated on its training images at batch 2, 8, 32 and 128; the
worst layer's variance in ``eval()`` over its buffer (geometric mean over channels), by plain hooks
in float64. ``dropout off`` puts dropout in eval by hand, which the peers leave to their user.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from tests.benchmarks.bench_passes import DIGITS, digits, resnet18
from tests.nets import batches_of, captured_inputs
from varshift_cli import recalibrate
from varshift_cli.heap import keep_freed_memory
from varshift_cli.instrument import borrowed, find_batch_norms
from varshift_cli.measurement.memory import memory_budget
from varshift_cli.measurement.passes import plan_join, wire
from varshift_cli.records import SilentProgress
from varshift_cli.remedies import Workload, corrected, gather_populations, recalibrated

SIZES = (2, 8, 32, 128)
BUDGETS = ("32M", "64M", "128M", "256M", "1G")


def speed(
    rounds: int, device: str, shape: tuple[int, ...] = (256, 3, 64, 64), size: int = 32
) -> None:
    """Print what a recalibration and a correction cost."""
    torch.manual_seed(0)
    model, x = resnet18().eval().to(device), torch.randn(shape, device=device)
    inputs = list(x.split(size))
    apart = Workload(model, find_batch_norms(model), batches_of(x, size), (), SilentProgress())
    joined = _joined(apart)

    def bare() -> None:
        with torch.inference_mode():
            for each in inputs:
                model(each)

    def torch_update_bn() -> None:
        update_bn(inputs, model)
        model.eval()

    passes: dict[str, Callable[[], object]] = {
        "bare forward": bare,
        "update_bn": torch_update_bn,
    }
    for name, work in (("", joined), (", loader", apart)):
        passes[f"recalibrate{name}"] = partial(_recalibration, work)
        passes[f"correct{name}"] = partial(_correction, work)
    times: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(rounds + 1):
        for name, run in passes.items():
            began = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - began)
    print(f"speed: ResNet-18 size, {shape[0]} samples of {shape[2]} px, batch {size}, on {device}")
    print(f"  {'':20}{'x bare':>8}{'x update_bn':>13}{'s':>8}")
    for name, own in times.items():
        print(
            f"  {name:20}{_ratio(own, times['bare forward']):8.2f}"
            f"{_ratio(own, times['update_bn']):13.2f}{statistics.median(own):8.2f}"
        )


def _joined(work: Workload) -> Workload:
    """As ``fix`` has it for data from a file."""
    with borrowed(work.model, work.catalogue) as instrumented:
        wiring, _ = wire(instrumented, work.batches)
        return replace(work, join=plan_join(instrumented, work.batches, wiring, work.memory))


def _recalibration(work: Workload) -> None:
    recalibrated(gather_populations(work, with_train=False))


def _correction(work: Workload) -> None:
    corrected(gather_populations(work, with_train=True), work.catalogue)


def _ratio(own: list[float], other: list[float]) -> float:
    return statistics.median(one / two for one, two in zip(own, other, strict=True))


def memory() -> None:
    """Print the peak of both repairs for several budgets."""
    print("memory: ResNet-18 size, 256 samples of 64 px, batch 16; MiB beyond model and data")
    print(
        f"  {'--memory':>9}{'recalibrate':>13}{'correct':>9}"
        f"{'allowed':>9}{'model':>7}{'one batch':>11}{'windows':>9}"
    )
    for budget in BUDGETS:
        peaks = []
        for kind in ("recalibrate", "correct"):
            command = [sys.executable, __file__, "--child", budget, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak, model, batch, windows = map(float, done.stdout.split())
            peaks.append(peak)
        allowed = memory_budget(budget) / 2**20 + model + batch
        print(
            f"  {budget:>9}{peaks[0]:13.0f}{peaks[1]:9.0f}"
            f"{allowed:9.0f}{model:7.0f}{batch:11.0f}{windows:9.0f}"
        )


def measure_peak(budget: str, kind: str) -> tuple[float, float, float, int]:
    """In MiB: the peak of a repair, the model, a bare forward of one batch; and windows.

    Peaks are of the resident set, above what it was with model and data in memory.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = resnet18().eval(), torch.randn(256, 3, 64, 64)
    batches, granted = batches_of(x, 16), memory_budget(budget)
    catalogue = find_batch_norms(model)
    work = _joined(Workload(model, catalogue, batches, (), SilentProgress(), memory=granted))
    # What torch imports on the first dispatched op (90 MiB of it) is code, not activations.
    gather_populations(work.on(batches_of(x[:2], 1)), with_train=False)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed, and kept, is no part of what follows
    before = _status("VmRSS")
    with torch.inference_mode():
        model(batches[0].args[0])
    batch = _status("VmHWM") - before
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak counts from now on
    found = gather_populations(work, with_train=kind == "correct")
    peak = _status("VmHWM") - before
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return peak / 1024, size / 2**20, batch / 1024, found.procedure.windows


def _status(field: str) -> int:
    """A field of /proc/self/status, in KiB."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise LookupError(field)


def exactness() -> None:
    """Print how far each procedure leaves the worst layer, by batch size."""
    import numpy as np

    with np.load(DIGITS / "calib.npz") as arrays:
        x = torch.from_numpy(arrays["x"])
    net = digits()
    net.load_state_dict(torch.load(DIGITS / "model.pt", weights_only=True)["model"])
    print("exactness: digits net, 1,000 training images; worst layer's E/R, 1 is exact")
    print(f"  {'':22}" + "".join(f"{f'batch {size}':>11}" for size in SIZES))
    print(f"  {'as trained':22}{worst(net.eval(), x):11.4g}")
    for name, repair in procedures().items():
        row = [_after(net, repair, x, size) for size in SIZES]
        print(f"  {name:22}" + "".join(f"{value:11.7g}" for value in row), flush=True)


def _after(
    net: nn.Module, repair: Callable[[nn.Module, list[Tensor]], object], x: Tensor, size: int
) -> float:
    torch.manual_seed(0)
    copied = copy.deepcopy(net)
    repair(copied, list(x.split(size)))
    return worst(copied.eval(), x)


def procedures() -> Procedures:
    """Ours and theirs, of peers those that are installed."""
    found: Procedures = {
        "varshift recalibrate": recalibrate,
        "update_bn": lambda net, batches: update_bn(batches, net),
        "update_bn, dropout off": update_bn_by_hand,
    }
    for name, peer in PEERS.items():
        try:
            found |= peer()
        except ImportError as error:
            print(f"  ({name} is not installed, or lacks {error.name}: skipped)")
    return found


Procedures = dict[str, Callable[[nn.Module, list[Tensor]], object]]


def fvcore() -> Procedures:
    """Precise BN: ``model.train()`` is the caller's, so that dropout is on as documented."""
    from fvcore.nn.precise_bn import update_bn_stats

    def run(net: nn.Module, batches: list[Tensor], *, dropout: bool) -> None:
        net.train()
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.train(dropout)
        with torch.no_grad():
            update_bn_stats(net, batches, len(batches), progress=None)

    return {
        "fvcore, as documented": lambda net, batches: run(net, batches, dropout=True),
        "fvcore, dropout off": lambda net, batches: run(net, batches, dropout=False),
    }


def nncf() -> Procedures:
    """Adaptation by moving averages, dropout off, over the data once."""
    from nncf import Dataset, batch_norm_adaptation

    def run(net: nn.Module, batches: list[Tensor]) -> None:
        with torch.no_grad():
            batch_norm_adaptation(net, Dataset(batches))

    return {"NNCF": run}


def aimet() -> Procedures:
    """The mean of batch statistics, dropout off, over the data once."""
    from aimet_torch.bn_reestimation import reestimate_bn_stats

    return {"AIMET": lambda net, batches: reestimate_bn_stats(net, batches, len(batches))}


PEERS: dict[str, Callable[[], Procedures]] = {"fvcore": fvcore, "NNCF": nncf, "AIMET": aimet}


def update_bn_by_hand(net: nn.Module, batches: list[Tensor]) -> None:
    """The average of batch statistics with BN alone in train mode, as update_bn takes it."""
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        for batch in batches:
            net(batch)


def worst(net: nn.Module, x: Tensor) -> float:
    """exp of the largest mean over channels of |ln((E+eps)/(R+eps))|."""
    names = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    found = 0.0
    for name, inputs in captured_inputs(net, x, names).items():
        bn = net.get_submodule(name)
        ratio = (inputs.var(0) + bn.eps) / (bn.running_var.double() + bn.eps)
        found = max(found, float(ratio.log().abs().mean()))
    return math.exp(found)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("speed", "memory", "exactness"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the program does
    if arguments.child is not None:
        print(*measure_peak(*arguments.child))
        return
    if arguments.only in {None, "speed"}:
        speed(arguments.rounds, arguments.device)
    if arguments.only in {None, "memory"}:
        memory()
    if arguments.only in {None, "exactness"}:
        exactness()


if __name__ == "__main__":
    main()
