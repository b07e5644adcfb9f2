"""The gate as pull requests would meet it: the digits net, by the command line alone.

    python tests/benchmarks/pull_request.py [--seeds 20] [--retrained 5]

1. main: the network with its dropout behind all BatchNorm; its report becomes the baseline.
2. a pull request moves the dropout straight before the last BatchNorm of each block and trains
   again: the gate must fail and name such a layer.
3. the same, repaired by varshift fix: the gate must pass.
4. noise alone: other samples (256 of 1,000, by the seed), and the same network trained again with
   other seeds, must never turn pass into fail or fail into pass. Undecided is allowed, and counted.

Exits 1 if anything is not as it must be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
sys.path[:0] = [str(ROOT), str(DIGITS)]

import torch  # noqa: E402  after the path is set
from train import Recipe, load_splits, train  # noqa: E402

THRESHOLD = "1.25"
EPOCHS = 6
GATES = {
    "--max-shift": ("--max-shift", THRESHOLD),
    "--baseline": ("--baseline", "base.json"),
    "both": ("--baseline", "base.json", "--max-shift", THRESHOLD),
}
CODES = {0: "pass", 1: "fail", 3: "unchecked", 4: "inconclusive"}


def varshift(*arguments, folder):
    """Run the command; its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "varshift_cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in CODES:
        raise SystemExit(done.stderr)
    return done.returncode, done.stdout


def scan(model, where, folder, *more):
    """Gate one checkpoint; its status and the layer that decides."""
    arch = ("--arch", f"{DIGITS / 'model.py'}:build", "--arch-arg", f"where={where}")
    code, out = varshift(
        "scan", model, *arch, "--data", "calib.npz", "--format", "json", *more, folder=folder
    )
    return CODES[code], json.loads(out)["verdict"]["worst_layer"]


def trained(where, seed, path):
    """Train the digits net with its dropout there, and save it."""
    torch.save(train(Recipe(where, EPOCHS, 25), load_splits()[0], seed=seed), path)


def said(what, found, expected):
    """Print one line; whether it is as expected."""
    good = found == expected
    print(f"{what:58}{found:14}{'' if good else f'EXPECTED {expected}'}", flush=True)
    return good


def story(folder):
    """Baseline, pull request, repair: the verdicts that a team would see."""
    gate = GATES["both"]
    base = scan("main.pt", "after_all_bn", folder, "--report", "base.json")[0]
    yield said("main, without a gate", base, "pass")
    yield said(
        "main against its own baseline", scan("main.pt", "after_all_bn", folder, *gate)[0], "pass"
    )
    status, layer = scan("pr.pt", "before_last_bn", folder, *gate)
    yield said("dropout moved before BatchNorm, trained again", status, "fail")
    print(f"  names {layer}")
    yield layer.endswith(".bn3")
    arch = ("--arch", f"{DIGITS / 'model.py'}:build", "--data", "calib.npz", "-o", "fixed.pt")
    yield varshift("fix", "pr.pt", "--recalibrate", *arch, folder=folder)[0] == 0
    repaired = scan("fixed.pt", "before_last_bn", folder, *gate)[0]
    yield said("the same, repaired by varshift fix --recalibrate", repaired, "pass")


def checked(folder, gate):
    """Gate the report that the last scan left."""
    return CODES[varshift("check", "now.json", *GATES[gate], folder=folder)[0]]


def noise(folder, seeds):
    """Other samples: pass and fail must not both occur."""
    for model, where in (("main.pt", "after_all_bn"), ("pr.pt", "before_last_bn")):
        found = {gate: Counter() for gate in GATES}
        for seed in range(seeds):
            drawn = ("--samples", 256, "--seed", seed)
            scan(model, where, folder, *drawn, "--report", "now.json")
            for gate, tally in found.items():
                tally[checked(folder, gate)] += 1
        for gate, tally in found.items():
            yield steady(f"{model}, 256 samples by {seeds} seeds, {gate}", tally)


def retrained(folder, seeds):
    """Other trainings of the same network: pass and fail must not both occur.

    A baseline alone is no gate for these: another training is another network, and may well be
    worse beyond both intervals.
    """
    for where in ("after_all_bn", "before_last_bn"):
        found = {gate: Counter() for gate in ("--max-shift", "both")}
        for seed in range(100, 100 + seeds):
            trained(where, seed, folder / "again.pt")
            scan("again.pt", where, folder, "--report", "now.json")
            for gate, tally in found.items():
                tally[checked(folder, gate)] += 1
        for gate, tally in found.items():
            yield steady(f"{where} trained by {seeds} seeds, {gate}", tally)


def steady(what, found):
    """Print one line; whether only one of pass and fail occurred."""
    good = not (found["pass"] and found["fail"])
    tally = ", ".join(f"{number} {status}" for status, number in found.most_common())
    print(f"{what:58}{tally}{'' if good else '  FLIPPED'}", flush=True)
    return good


def main() -> int:
    """Run all of it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--retrained", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load_splits()[0].save(folder / "calib.npz")
        trained("after_all_bn", 0, folder / "main.pt")
        trained("before_last_bn", 0, folder / "pr.pt")
        good = [*story(folder), *noise(folder, asked.seeds), *retrained(folder, asked.retrained)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
