"""Is the choice of ``varshift fix`` any good? Nets x ways of training x seeds, on digits.

    python tests/benchmarks/repair_table.py [--seeds 8] [--cache DIR]

Every net is trained on scikit-learn's digits, then calibrated on plain training images. Accuracy
on 797 held-out images, in percent, mean over seeds: as it is, after torch's ``update_bn``, after
``recalibrate``, after ``correct``, and after what ``fix`` chooses: by the labels of the calibration
images, which the net was trained on; by ``--holdout``, one half of the held-out images to choose
and the other to count, and the other way round; and without labels. A cell is a net and a way of
training. Trained weights are kept in the cache folder.

Below the table: in how many cells a rule is within one standard error of the best choice, by the
error of their paired difference over seeds and by that of the best choice's mean. The same is
counted for two judges who know more than any rule can (:data:`HINDSIGHT`): chance alone keeps them
from 100 %.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from tests.nets import batches_of
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement import measure
from varshift_cli.pipeline.assembly import Subject, assemble
from varshift_cli.pipeline.choice import Choice
from varshift_cli.pipeline.crossfit import statistics_by
from varshift_cli.pipeline.deciding import Evidence, HeldOut, decide
from varshift_cli.pipeline.measured import populations_of
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.records import CheckpointRecord, SilentProgress
from varshift_cli.remedies import Workload
from varshift_cli.remedies.undoing import tried

BATCH = 50
CALIBRATION = 400
RULES = ("auto, labels", "auto, holdout", "auto, none")
OPTIONS = ("as is", "update_bn", "recalibrate", "correct", *RULES)


class Residual(nn.Module):
    """Pre-activation residual block: BN, ReLU, conv, BN, ReLU, conv; dropout or DropPath in it."""

    def __init__(self, width: int, p: float, path: float) -> None:
        """``p`` straight before the second BN, ``path`` on the whole branch."""
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.drop = nn.Dropout(p)
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        out = self.drop(self.conv1(torch.relu(self.bn1(x))))
        out = self.conv2(torch.relu(self.bn2(out)))
        keep = functional.dropout(torch.ones(len(x), 1, 1, 1), self.path, self.training)
        return x + keep * out


class ConvNet(nn.Module):
    """Three residual blocks at 8x8 and 4x4; ``last`` is a dropout after all BN."""

    def __init__(self, p: float = 0.0, path: float = 0.0, last: float = 0.0) -> None:
        """DROP probabilities."""
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.body = nn.Sequential(
            Residual(12, p, path), nn.AvgPool2d(2), Residual(12, p, path), Residual(12, p, path)
        )
        self.bn = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(last)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> (N, 10)."""
        out = torch.relu(self.bn(self.body(self.conv(x)))).mean(dim=(2, 3))
        logits: Tensor = self.fc(self.drop(out))
        return logits


def plain_conv() -> nn.Module:
    """Conv, BN, ReLU, Dropout2d, three times."""
    layers: list[nn.Module] = []
    for c_in, c_out in ((1, 16), (16, 16), (16, 16)):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)]
        layers += [nn.ReLU(), nn.Dropout2d(0.25), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10))


def mlp() -> nn.Module:
    """Linear, BN1d, ReLU, Dropout, three times."""
    layers: list[nn.Module] = [nn.Flatten()]
    for c_in, c_out in ((64, 64), (64, 64), (64, 64)):
        layers += [nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out), nn.ReLU(), nn.Dropout(0.4)]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def straight() -> nn.Module:
    """Linear, ReLU, Dropout, BN1d, three times: the last layer adapts to the shift."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(3):
        layers += [nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.4), nn.BatchNorm1d(64)]
    return nn.Sequential(*layers, nn.Linear(64, 10))


NETS: dict[str, Callable[[], nn.Module]] = {
    "PreResNet": lambda: ConvNet(p=0.5),
    "MLP, BN1d": mlp,
    "MLP, drop-BN": straight,
    "Dropout2d": plain_conv,
    "DropPath": lambda: ConvNet(path=0.3),
    "after all BN": lambda: ConvNet(last=0.5),
    "none": ConvNet,
}
TRAININGS = ("plain", "augmented", "half", "pruned", "EMA", "eval mode", "frozen BN")


@dataclass(frozen=True)
class Data:
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,), if there are any."""

    x: Tensor
    y: Tensor | None


def load() -> tuple[Data, Data]:
    """1,000 images to train on and 797 held out."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    y = torch.from_numpy(digits.target).long()
    train, held_out = train_test_split(
        range(len(y)), train_size=1000, random_state=0, stratify=digits.target
    )
    return Data(x[train], y[train]), Data(x[held_out], y[held_out])


def augment(x: Tensor) -> Tensor:
    """Shift by up to a pixel, change the contrast, add noise."""
    up, left = (int(torch.randint(-1, 2, ())) for _ in range(2))
    contrast = torch.rand(len(x), 1, 1, 1) + 0.5
    return torch.roll(x, (up, left), (2, 3)) * contrast + 0.2 * torch.randn_like(x)


@dataclass
class Trainer:
    """Trains one net."""

    net: nn.Module
    data: Data
    epochs: int
    rate: float = 0.1
    frozen: bool = False
    augmented: bool = False
    constant: bool = False
    ema: dict[str, Tensor] = field(default_factory=dict)

    def run(self, until: float = 1.0) -> nn.Module:
        """SGD over a one-cycle schedule, cut short at a share ``until`` of it."""
        steps = len(self.data.y) // BATCH * self.epochs
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            self.net.parameters(), self.rate, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        if self.frozen:  # without batch statistics SGD gets nowhere at such rates
            optimizer = torch.optim.Adam(self.net.parameters(), self.rate)
        self._train_mode()
        for step in range(int(steps * until)):
            warm = min(1.0, step / (0.2 * steps))
            decay = 1.0 if self.constant else min(1.0, (1.0 - step / steps) / 0.8)
            optimizer.param_groups[0]["lr"] = self.rate * min(warm + 0.02, decay)
            rows = torch.randint(len(self.data.y), (BATCH,))
            x = augment(self.data.x[rows]) if self.augmented else self.data.x[rows]
            optimizer.zero_grad()
            functional.cross_entropy(self.net(x), self.data.y[rows]).backward()
            optimizer.step()
            self._average()
        return self.net.eval()

    def _train_mode(self) -> None:
        self.net.train()
        if self.frozen:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _average(self) -> None:
        for name, value in self.net.named_parameters():
            kept = self.ema.setdefault(name, value.detach().clone())
            kept.lerp_(value.detach(), 0.02)


def train(kind: str, make: Callable[[], nn.Module], data: Data, seed: int) -> nn.Module:
    """A net trained in one of the ways of :data:`TRAININGS`."""
    torch.manual_seed(seed)
    net = make()
    epochs = 24 if isinstance(net, nn.Sequential) else 12
    if kind == "augmented":
        return Trainer(net, data, epochs, augmented=True).run()
    if kind == "half":
        return Trainer(net, data, epochs).run(until=0.5)
    if kind == "eval mode":
        return Trainer(net, data, epochs, rate=0.005, frozen=True).run()
    if kind == "EMA":
        trainer = Trainer(net, data, epochs, constant=True)
        trainer.run()
        net.load_state_dict({**net.state_dict(), **trainer.ema})
        return net
    if kind == "frozen BN":
        # Pretrained on the images turned on their side, fine-tuned with BN in eval mode.
        Trainer(net, Data(data.x.transpose(2, 3).flip(2), data.y), epochs).run()
        return Trainer(net, data, epochs, rate=0.002, frozen=True).run()
    Trainer(net, data, epochs).run()
    if kind == "pruned":
        prune(net, 0.4)
    return net


@torch.no_grad()
def prune(net: nn.Module, share: float) -> None:
    """Set the smallest weights of every layer but the last to zero."""
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for weight in weights[:-1]:
        bound = weight.abs().flatten().kthvalue(int(share * weight.numel())).values
        weight[weight.abs() <= bound] = 0.0


def trained(cache: Path, kind: str, name: str, data: Data, seed: int) -> nn.Module:
    """As :func:`train`, kept on disk."""
    source = hashlib.sha256(Path(__file__).read_bytes().split(b"def trained")[0]).hexdigest()[:12]
    path = cache / f"{source}-{name}-{kind}-{seed}.pt".replace(" ", "_").replace(",", "")
    net = NETS[name]()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    net = train(kind, NETS[name], data, seed)
    torch.save(net.state_dict(), path)
    return net.eval()


@torch.no_grad()
def hits(net: nn.Module, data: Data) -> Tensor:
    """Whether each held-out image is recognised, in eval mode, float64."""
    return (net.eval()(data.x).argmax(1) == data.y).double()


@dataclass(frozen=True)
class Outcome:
    """Hits on held-out images by option, and what each rule chose."""

    hits: dict[str, Tensor]
    choices: dict[str, list[Choice]]


def outcome(net: nn.Module, calibration: Data, held_out: Data) -> Outcome:
    """Try every option on one net."""
    found = {"as is": hits(net, held_out)}
    torch.manual_seed(0)
    copied = copy.deepcopy(net)
    update_bn(list(calibration.x.split(BATCH)), copied)
    found["update_bn"] = hits(copied, held_out)
    known = evidence_of(net, calibration)
    populations = populations_of(known.measured, known.work)
    for method in ("recalibrate", "correct"):
        new = statistics_by(method, populations, known.work)
        with tried(known.work.catalogue, new.populations):
            found[method] = hits(net, held_out)
    halves = [torch.arange(len(held_out.y)) % 2 == half for half in (0, 1)]
    judges = [Data(held_out.x[half], held_out.y[half]) for half in halves]
    choices = {
        "auto, labels": [decide(known)],
        "auto, holdout": [
            decide(replace(known, held_out=held_out_on(net, judge))) for judge in reversed(judges)
        ],
        "auto, none": [decide(evidence_of(net, Data(calibration.x, None)))],
    }
    for rule, made in choices.items():
        counted = torch.empty_like(found["as is"])
        for half, choice in zip(halves, made * (2 // len(made)), strict=True):
            counted[half] = found[choice.method or "as is"][half]
        found[rule] = counted
    return Outcome(found, choices)


def evidence_of(net: nn.Module, calibration: Data) -> Evidence:
    """What a scan on the calibration data knows."""
    batches = batches_of(calibration.x, BATCH, calibration.y)
    catalogue = find_batch_norms(net)
    work = Workload(net, catalogue, batches, (), SilentProgress(), join=len(batches))
    measured = measure(net, catalogue, batches, seed=0, progress=SilentProgress(), regroup=True)
    subject = Subject(
        catalogue, batches, CheckpointRecord(), None, BATCH, 0, torch.device("cpu"), torch.float32
    )
    report = assemble(measured, subject)
    return Evidence(measured, report, work, Judge(calibration.y), regroup=True, batch_size=BATCH)


@torch.no_grad()
def held_out_on(net: nn.Module, data: Data) -> HeldOut:
    """Other images to judge on, as ``--holdout`` gives them."""
    batches = batches_of(data.x, BATCH, data.y)
    return HeldOut("held-out images", batches, Judge(data.y), net.eval()(data.x))


def cells(
    seeds: Iterable[int], cache: Path, nets: list[str], kinds: list[str]
) -> Iterator[tuple[str, str, list[Outcome]]]:
    """Every net and way of training, with an outcome per seed."""
    train_data, held_out = load()
    calibration = Data(train_data.x[:CALIBRATION], train_data.y[:CALIBRATION])
    for name in nets:
        for kind in kinds:
            yield (
                name,
                kind,
                [
                    outcome(trained(cache, kind, name, train_data, seed), calibration, held_out)
                    for seed in seeds
                ],
            )


def gap(found: list[Outcome], one: str, other: str) -> tuple[float, float]:
    """Mean over seeds of the paired difference, and its standard error.

    The larger of the error between seeds and the error from the number of images.
    """
    paired = [each.hits[one] - each.hits[other] for each in found]
    means = [float(each.mean()) for each in paired]
    images = math.sqrt(sum(float(each.var()) / len(each) for each in paired)) / len(paired)
    seeds = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return statistics.mean(means), max(images, seeds)


CHOICES = ("as is", "recalibrate", "correct")
HINDSIGHT = ("best of net", "best of cell")
"""What a judge attains on one half of the held-out images who knows all labels of the other: of a
single net (400 images), and of all nets of a cell together."""


def add_hindsight(found: list[Outcome]) -> None:
    """Add the hits of :data:`HINDSIGHT` to those of each outcome."""
    half = torch.arange(len(found[0].hits["as is"])) % 2
    for name, known in zip(HINDSIGHT, ([[each] for each in found], [found]), strict=True):
        for nets in known:
            best = [best_choice(nets, half != side) for side in (0, 1)]
            for each in nets:
                each.hits[name] = torch.where(half == 0, each.hits[best[0]], each.hits[best[1]])


def best_choice(found: list[Outcome], rows: Tensor | slice = slice(None)) -> str:
    """Of these nets, counted on some of the images."""
    return max(
        CHOICES, key=lambda name: statistics.mean(float(o.hits[name][rows].mean()) for o in found)
    )


@dataclass
class Tally:
    """In how many cells a rule does well.

    Attributes:
        below: Where it falls below the net as it is by more than two standard errors.
        paired: How often it is within one of the best choice, by the error of their difference.
        unpaired: The same by the error of the best choice's mean over seeds.
    """

    below: list[str] = field(default_factory=list)
    paired: int = 0
    unpaired: int = 0

    def count(self, cell: str, found: list[Outcome], rule: str) -> None:
        """Add a cell."""
        best = best_choice(found)
        loss, error = gap(found, rule, "as is")
        if loss < -2 * error:
            self.below.append(cell)
        behind, error = gap(found, rule, best)
        self.paired += behind >= -error - 1e-9
        spread = statistics.pstdev(float(o.hits[best].mean()) for o in found)
        self.unpaired += behind >= -spread / math.sqrt(max(len(found) - 1, 1)) - 1e-9

    def told(self, total: int) -> str:
        """In words."""
        return (
            f"below as it is by more than two standard errors in {len(self.below)} of {total} "
            f"cells {self.below}; within one of the best choice in {self.paired} "
            f"({100 * self.paired / total:.0f} %) by the error of the difference, in "
            f"{self.unpaired} ({100 * self.unpaired / total:.0f} %) by that of the best one's mean"
        )


def main() -> None:
    """Print the table and whether the criteria hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "repair_table")
    parser.add_argument("--nets", nargs="*", default=list(NETS))
    parser.add_argument("--trainings", nargs="*", default=list(TRAININGS))
    parser.add_argument("--why", action="store_true", help="print the reason of every choice")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(f"{'':24}" + "".join(f"{name:>14}" for name in OPTIONS) + "  chosen, by seed")
    total = 0
    tallies = {rule: Tally() for rule in (*RULES, *HINDSIGHT)}
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for name, kind, found in cells(seeds, arguments.cache, arguments.nets, arguments.trainings):
        total += 1
        _show(name, kind, found)
        if arguments.why:
            _show_reasons(found)
        add_hindsight(found)
        for rule, tally in tallies.items():
            tally.count(f"{name}/{kind}", found, rule)
    for rule, tally in tallies.items():
        print(f"{rule}: {tally.told(total)}")


def _show(name: str, kind: str, found: list[Outcome]) -> None:
    shown = [statistics.mean(float(o.hits[option].mean()) for o in found) for option in OPTIONS]
    chosen = [
        "".join(_letter(choice) for o in found for choice in o.choices[rule]) for rule in RULES
    ]
    figures = "".join(f"{100 * value:14.1f}" for value in shown)
    print(f"{name:13}{kind:11}{figures}  {' / '.join(chosen)}", flush=True)


def _show_reasons(found: list[Outcome]) -> None:
    for each in found:
        for rule in RULES:
            for choice in each.choices[rule]:
                print(f"    {rule}: {choice.reason}")


def _letter(choice: Choice) -> str:
    if choice.method is None:
        return "x" if choice.needed else "-"
    return choice.method[0]


if __name__ == "__main__":
    sys.exit(main())
