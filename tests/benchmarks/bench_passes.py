"""What a scan's passes and a recalibration cost, beside a bare forward of the same batches.

    python tests/benchmarks/bench_passes.py [--rounds 7]

Prints the median over rounds of each pass's time divided by that of the bare forward beside it.
All passes take turns within a round, so that a machine that speeds up or slows down hits them
alike. ``bare`` is ``model.eval()`` under ``inference_mode``; ``bare, dropout on`` is the same with
torch's own dropout at work, beside which the T regime stands.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from varshift_cli.heap import keep_freed_memory
from varshift_cli.instrument import borrowed, find_batch_norms
from varshift_cli.measurement.passes import plan_join, run_eval, run_population, wire
from varshift_cli.measurement.regimes import EvalRegime, PopulationRegime
from varshift_cli.measurement.regroup import join_batches
from varshift_cli.measurement.samples import identify
from varshift_cli.records import Batch, SilentProgress
from varshift_cli.remedies import Workload, gather_populations, recalibrated

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


class BasicBlock(nn.Module):
    """ResNet's basic block, with a dropout before its last BN."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        """3x3, BN, ReLU, 3x3, Dropout, BN, sum, ReLU."""
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.drop = nn.Dropout(0.3)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.down = (
            None
            if stride == 1 and c_in == c_out
            else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        skip = x if self.down is None else self.down(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.drop(self.conv2(out))) + skip)


def resnet18() -> nn.Module:
    """The size of ResNet-18: 11 million parameters, 20 BN layers."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    c_in = 64
    for c_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(c_in, c_out, stride), BasicBlock(c_out, c_out, 1)]
        c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def digits() -> nn.Module:
    """The shipped example's network."""
    sys.path.insert(0, str(DIGITS))
    from model import build

    net: nn.Module = build()
    return net


class Bench:
    """One model, its batches, and the ways of passing them through."""

    def __init__(self, model: nn.Module, x: Tensor, size: int) -> None:
        """Cut ``x`` into batches of ``size``."""
        self.model = model.eval()
        self.inputs = list(x.split(size))
        self.batches = tuple(Batch((part,), {}, None, len(part)) for part in self.inputs)
        self.catalogue = find_batch_norms(model)
        samples = identify(self.batches)
        with borrowed(model, self.catalogue) as instrumented:
            wiring, _ = wire(instrumented, self.batches)
            # As for data from a file.
            self.join = plan_join(instrumented, self.batches, wiring)
        self.joined, self.samples_joined = join_batches(self.batches, samples, self.join)
        self.samples = samples

    def bare(self) -> None:
        """The forward, and nothing else."""
        with torch.inference_mode():
            for x in self.inputs:
                self.model(x)

    def bare_dropout_on(self) -> None:
        """The forward with torch's own dropout at work."""
        drops = [m for m in self.model.modules() if isinstance(m, nn.Dropout)]
        for drop in drops:
            drop.train()
        self.bare()
        for drop in drops:
            drop.eval()

    def eval_regime(self) -> None:
        """E."""
        with borrowed(self.model, self.catalogue) as instrumented:
            regime = EvalRegime(self.samples_joined, seed=0)
            run_eval(instrumented, self.joined, regime, _ignore)

    def eval_regime_as_they_come(self) -> None:
        """E for a loader, whose batches are never joined."""
        with borrowed(self.model, self.catalogue) as instrumented:
            run_eval(instrumented, self.batches, EvalRegime(self.samples, seed=0), _ignore)

    def clean_regime(self) -> None:
        """C, with moments by group."""
        self._population(noise_on=False)

    def train_regime(self) -> None:
        """T, with moments by group."""
        self._population(noise_on=True)

    def _population(self, *, noise_on: bool) -> None:
        regime = PopulationRegime(self.samples_joined, noise_on=noise_on, seed=0)
        with borrowed(self.model, self.catalogue) as instrumented:
            run_population(instrumented, self.joined, regime, _ignore)

    def recalibration(self) -> None:
        """The statistics that ``recalibrate`` writes."""
        self._recalibration(self.join)

    def recalibration_as_they_come(self) -> None:
        """The same for a loader, whose batches are never joined."""
        self._recalibration(1)

    def _recalibration(self, join: int) -> None:
        work = Workload(self.model, self.catalogue, self.batches, (), SilentProgress(), join=join)
        recalibrated(gather_populations(work, with_train=False))

    def torch_update_bn(self) -> None:
        """PyTorch's own, dropout on."""
        update_bn(self.inputs, self.model)
        self.model.eval()

    def fvcore(self) -> None:
        """fvcore's precise BN as documented: the model in train mode, dropout on."""
        from fvcore.nn.precise_bn import update_bn_stats

        self.model.train()
        with torch.no_grad():
            update_bn_stats(self.model, self.inputs, len(self.inputs), progress=None)
        self.model.eval()


def _ignore(_index: int, _output: object) -> None:
    """Keep no output."""


def main() -> None:
    """Print a table per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    torch.manual_seed(0)
    nets = {
        "ResNet-18 size, 64 px, batch 32, 512 samples": (resnet18(), (512, 3, 64, 64), 32),
        "digits net, 8 px, batch 64, 1,000 samples": (digits(), (1000, 1, 8, 8), 64),
    }
    for title, (model, shape, size) in nets.items():
        print(title)
        for name, ratio, seconds in compare(Bench(model, torch.randn(shape), size), rounds):
            print(f"  {name:22} {ratio:5.2f} x   {seconds:7.3f} s")


def compare(bench: Bench, rounds: int) -> list[tuple[str, float, float]]:
    """(name, median ratio to bare, median seconds) of every pass."""
    passes: dict[str, Callable[[], None]] = {
        "bare": bench.bare,
        "bare, dropout on": bench.bare_dropout_on,
        "E eval regime": bench.eval_regime,
        "  batches not joined, E": bench.eval_regime_as_they_come,
        "C clean regime": bench.clean_regime,
        "T train regime": bench.train_regime,
        "exact recalibration": bench.recalibration,
        "  batches not joined": bench.recalibration_as_they_come,
        "torch update_bn": bench.torch_update_bn,
    }
    try:
        import fvcore.nn.precise_bn  # noqa: F401
    except ImportError:
        print("  (fvcore is not installed)")
    else:
        passes["fvcore"] = bench.fvcore
    times: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(rounds + 1):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return [
        (
            name,
            statistics.median(own / bare for own, bare in zip(seconds, times["bare"], strict=True)),
            statistics.median(seconds),
        )
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    main()
