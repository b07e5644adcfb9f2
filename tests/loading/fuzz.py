"""Damage checkpoints of every kind and read them; whatever happens must be said in our words.

    python -m tests.loading.fuzz --runs 20000 --seed 0

For each damaged file: nothing but a ``VarshiftError`` is raised, nothing takes 10 seconds, no code
out of the file runs (an audit hook watches), memory stays within a bound, and what is patched
leaves the original whole. Runs happen in forked workers, so that a crash of the process, inside
torch say, is a finding like any other. A run is known by its number: ``--only 1234`` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import logging
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch

from tests.loading import files, mutations
from tests.loading.test_hostile_pickles import MAGIC, baits
from varshift_cli.errors import VarshiftError
from varshift_cli.loading import open_checkpoint, open_model
from varshift_cli.loading.arrays import read_arrays

PATIENCE = 10
"""Seconds that a file may take."""
MEMORY = 2 * 2**30
"""Bytes that a worker may set aside beyond what it has at its start."""
PLAIN = files.KINDS
ARRAYS = ("npz", "npy", "compressed npz")
_CALLS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename",
    "subprocess.Popen", "pickle.find_class", "socket.connect", "ctypes.dlopen", "shutil.rmtree",
)  # fmt: skip
"""Audit events that no file may bring about."""
_CODE = ("exec", "compile", "import", "marshal.loads")
"""Events that reading tensors never needs; torch compiles the graph of a program, and numpy reads
a header with ``ast``."""
_WITH_CODE = ("scripted", "traced", "exported", "npz", "npy", "compressed npz")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


_FOLDER = f"{tempfile.gettempdir()}/varshift-fuzz"


class Hang(BaseException):
    """A run took longer than :data:`PATIENCE`."""


class CodeRan(BaseException):
    """Something in the file was obeyed."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A good file (or a bait) to start from."""

    kind: str
    data: bytes


def seeds(folder: Path) -> list[Seed]:
    """Good files of every kind, two richer ones, and the baits."""
    found = [Seed(kind, files.write(kind, folder / "seed").read_bytes()) for kind in PLAIN]
    torch.save(_rich(), folder / "seed")
    found.append(Seed("zip", (folder / "seed").read_bytes()))
    torch.save(_rich(), folder / "seed", _use_new_zipfile_serialization=False)
    found.append(Seed("legacy", (folder / "seed").read_bytes()))
    x = np.arange(12, dtype="float32").reshape(4, 3)
    np.savez(folder / "seed.npz", x=x, y=np.arange(4))
    found.append(Seed("npz", (folder / "seed.npz").read_bytes()))
    np.savez_compressed(folder / "seed.npz", x=x, y=np.arange(4))
    found.append(Seed("compressed npz", (folder / "seed.npz").read_bytes()))
    np.save(folder / "seed.npy", x)
    found.append(Seed("npy", (folder / "seed.npy").read_bytes()))
    for bait in baits(folder / "ran").values():
        pickled = bait if bait.endswith(b".") else bait + b"."
        found.append(Seed("zip", files.zip_with(folder / "seed", pickled).read_bytes()))
        found.append(Seed("legacy bait", MAGIC + pickled + b"\x80\x02]."))
    for each in folder.iterdir():
        each.unlink()
    return found


def _rich() -> object:
    """What Lightning and timm put around a state dict."""
    state = files.net().state_dict()
    return {
        "state_dict": state,
        "ema": {name: tensor.clone() for name, tensor in state.items()},
        "hyper_parameters": {"width": 4, "p": 0.5, "sizes": [1, 2, (3, 4)]},
        "args": argparse.Namespace(lr=0.1, path=Path("x")),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "sparse": torch.eye(2).to_sparse(),
        "metric": np.float64(1.5),
    }


def damaged(all_seeds: Sequence[Seed], seed: int, index: int) -> Seed:
    """The file of one run, always the same for the same numbers."""
    random = Random(f"{seed}:{index}")  # noqa: S311 - repeatable, no secret
    good = all_seeds[: len(PLAIN) + 2 + len(ARRAYS)]
    chosen = random.choice(good if random.random() < 0.85 else all_seeds)
    try:
        data = mutations.mutate(chosen.kind, random, chosen.data)
    except (ValueError, IndexError, KeyError, OverflowError, struct.error, EOFError):
        data = mutations.several(mutations.BLIND)(random, chosen.data)
    return Seed(chosen.kind, data)


def read_all(kind: str, path: Path, *, patch: bool) -> None:
    """All that scan and fix do with a file before and after the measurement."""
    if kind in ARRAYS:
        read_arrays(path, None, None)
        return
    checkpoint = open_checkpoint(path)
    state = checkpoint.state_dict()
    tensors = {}
    for name in state.tensors:
        with contextlib.suppress(VarshiftError):
            tensors[name] = state.tensors[name]
    if kind in {"scripted", "traced", "exported", "module", "legacy module"}:
        with contextlib.suppress(VarshiftError):
            open_model(checkpoint)
    with contextlib.suppress(VarshiftError):
        checkpoint.arrays()
    if patch:
        _patch(checkpoint, tensors, path)


def _patch(checkpoint, tensors, path: Path) -> None:
    buffers = {name: tensor + 1 for name, tensor in tensors.items() if "running_" in name}
    before = hashlib.sha256(path.read_bytes()).digest()
    output = path.with_name("patched")
    try:
        checkpoint.patch(output, buffers, key=None, overwrite=False)
    finally:
        output.unlink(missing_ok=True)
        assert hashlib.sha256(path.read_bytes()).digest() == before, "the original was changed"
        left = [each.name for each in path.parent.iterdir() if each != path]
        assert not left, f"left behind: {left}"


@dataclass
class Watch:
    """The audit hook: what a file must not bring about, while :meth:`on`."""

    active: bool = False
    kind: str = ""
    seen: str = ""

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        if self.active and self._is_forbidden(event, args):
            self.seen = f"{event} {args!r:.200}"
            raise CodeRan(self.seen)

    def _is_forbidden(self, event: str, args: tuple[object, ...]) -> bool:
        if event == "open" and isinstance(args[2], int) and args[2] & _WRITING:
            return not str(args[0]).startswith((_FOLDER, "/dev/null"))
        if event in {"os.remove", "os.rename"}:  # patching moves and removes its temporary file
            return not str(args[0]).startswith(_FOLDER)
        return event in _CALLS or (event in _CODE and self.kind not in _WITH_CODE)

    @contextlib.contextmanager
    def on(self, kind: str) -> Iterator[None]:
        self.active, self.kind, self.seen = True, kind, ""
        try:
            yield
        finally:
            self.active = False


def one_run(watch: Watch, case: Seed, folder: Path, *, patch: bool) -> str:
    """What became of it: the class of the error, or ``read``.

    Raises:
        Whatever is a finding.
    """
    path = folder / (
        "case.npy" if case.kind == "npy" else "case.npz" if "npz" in case.kind else "case"
    )
    path.write_bytes(case.data)

    def ring(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        with watch.on(case.kind):
            read_all(case.kind, path, patch=patch)
        outcome = "read"
    except VarshiftError as problem:
        outcome = type(problem).__name__ if problem.message else "FINDING an error without words"
    finally:
        signal.alarm(0)
        path.unlink(missing_ok=True)
    if watch.seen:  # it ran, and somebody swallowed the exception
        raise CodeRan(watch.seen)
    assert not list(folder.iterdir()), f"left behind: {[each.name for each in folder.iterdir()]}"
    return outcome


@dataclass(frozen=True, slots=True)
class Finding:
    """A run that did not go as promised."""

    index: int
    kind: str
    what: str


class Worker:
    """A forked process that takes every n-th run, and tells which one it is at."""

    def __init__(self, options: argparse.Namespace, first: int, step: int) -> None:
        self.options, self.next, self.step = options, first, step
        self.at = mmap.mmap(-1, 16)  # number of the run, and when it began
        self.pid = 0

    def start(self, job) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            code = 1
            try:
                with os.fdopen(writer, "w") as results:
                    job(self, results)
                code = 0
            except BaseException:  # noqa: BLE001 - the child must not return into the parent's code
                traceback.print_exc()
            os._exit(code)
        os.close(writer)
        os.set_blocking(reader, False)
        self.reader, self.rest = reader, b""

    def mark(self, index: int) -> None:
        self.at[:] = struct.pack("<qd", index, time.monotonic())

    def lines(self) -> list[str]:
        """Complete lines of results so far."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.reader, 65536):
                self.rest += part
        *whole, self.rest = self.rest.split(b"\n")
        return [line.decode() for line in whole]

    def is_stuck(self) -> bool:
        _, began = struct.unpack("<qd", self.at[:])
        return began > 0 and time.monotonic() - began > PATIENCE + 5


def work(all_seeds: Sequence[Seed], worker: Worker, results) -> None:
    """The job of a worker: runs until there are no more; a line for each."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    # What torch says of a damaged file on stderr is of no interest.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    watch = Watch()
    sys.addaudithook(watch.hook)
    with tempfile.TemporaryDirectory(prefix="varshift-fuzz") as name:
        _warm_up(all_seeds, Path(name))
        while worker.next < worker.options.runs:
            index = worker.next
            worker.mark(index)
            case = damaged(all_seeds, worker.options.seed, index)
            started = time.monotonic()
            told = _told(watch, case, Path(name), patch=index % 3 == 0)
            taken = time.monotonic() - started
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            results.write(f"{index}\t{case.kind}\t{told}\t{taken:.3f}\t{peak}\n")
            results.flush()
            worker.next += worker.step


def _warm_up(all_seeds: Sequence[Seed], folder: Path) -> None:
    """Read each good file once, so that all that is imported lazily has been."""
    for case in all_seeds[: len(PLAIN) + 2 + len(ARRAYS)]:
        one_run(Watch(), case, folder, patch=True)


def _told(watch: Watch, case: Seed, folder: Path, *, patch: bool) -> str:
    try:
        return one_run(watch, case, folder, patch=patch)
    except BaseException as problem:  # noqa: BLE001 - everything that is not promised is a finding
        for each in folder.iterdir():
            each.unlink()
        place = traceback.extract_tb(problem.__traceback__)
        ours = [frame for frame in place if "varshift_cli" in frame.filename] or list(place)
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        return f"FINDING {type(problem).__name__}: {str(problem)!r:.160} at {where}"


@dataclass
class Tally:
    """What all workers told."""

    outcomes: Counter[tuple[str, str]]
    findings: list[Finding]
    slowest: float = 0.0
    peak_kib: int = 0

    def take(self, line: str) -> None:
        index, kind, told, taken, peak = line.split("\t")
        self.slowest = max(self.slowest, float(taken))
        self.peak_kib = max(self.peak_kib, int(peak))
        if told.startswith("FINDING"):
            self.findings.append(Finding(int(index), kind, told))
        self.outcomes[kind, told.split(":")[0] if told.startswith("FINDING") else told] += 1


def run_all(options: argparse.Namespace, all_seeds: Sequence[Seed]) -> Tally:
    """Fork the workers, gather, and start a new one where one died."""
    tally = Tally(Counter(), [])
    job = functools.partial(work, all_seeds)
    workers = [Worker(options, first, options.workers) for first in range(options.workers)]
    for worker in workers:
        worker.start(job)
    while workers:
        time.sleep(0.05)
        for worker in list(workers):
            for line in worker.lines():
                tally.take(line)
            if worker.is_stuck():
                os.kill(worker.pid, signal.SIGKILL)
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            for line in worker.lines():
                tally.take(line)
            os.close(worker.reader)
            if status == 0:
                workers.remove(worker)
                continue
            index, _ = struct.unpack("<qd", worker.at[:])
            how = f"FINDING process ended by {os.waitstatus_to_exitcode(status)}"
            kind = damaged(all_seeds, options.seed, index).kind
            tally.findings.append(Finding(index, kind, how))
            tally.outcomes[kind, "crash"] += 1
            worker.next = index + worker.step
            worker.at[:] = bytes(16)
            worker.start(job)
    return tally


def show(tally: Tally, options: argparse.Namespace, seconds: float) -> None:
    """The table, and every finding."""
    kinds = sorted({kind for kind, _ in tally.outcomes})
    outcomes = sorted({outcome for _, outcome in tally.outcomes})
    wide = max(len(kind) for kind in kinds) + 2
    sys.stdout.write(" " * wide + "".join(f"{each:>18.18}" for each in outcomes) + "\n")
    for kind in kinds:
        row = "".join(f"{tally.outcomes[kind, each]:>18}" for each in outcomes)
        sys.stdout.write(f"{kind:<{wide}}{row}\n")
    sys.stdout.write(
        f"{tally.outcomes.total():,} files, {len(tally.findings)} findings, {seconds:.0f} s; "
        f"slowest {tally.slowest:.2f} s, peak {tally.peak_kib / 1024:,.0f} MiB resident\n"
    )
    for finding in sorted(tally.findings, key=lambda each: each.index)[: options.most]:
        sys.stdout.write(f"--only {finding.index}  {finding.kind}  {finding.what}\n")


def control() -> int:
    """Unpickle a bait in earnest: 0 if the hook caught it."""
    watch = Watch()
    sys.addaudithook(watch.hook)
    bait = baits(Path("ran"))["reduce"]
    with contextlib.suppress(CodeRan), watch.on("zip"):
        pickle.loads(bait)
    return 0 if watch.seen and not Path("ran").exists() else 1


def main() -> int:
    """Run, show, and tell by the exit code whether all went as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most", type=int, default=40, help="findings to show")
    parser.add_argument("--only", type=int, help="repeat one run here, with its traceback")
    parser.add_argument("--control", action="store_true", help="show that the hook does catch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name:
        warnings.simplefilter("ignore")
        all_seeds = seeds(Path(name))
    if options.control:
        return control()
    if options.only is not None:
        with tempfile.TemporaryDirectory(prefix="varshift-fuzz") as name:
            case = damaged(all_seeds, options.seed, options.only)
            told = one_run(Watch(), case, Path(name), patch=options.only % 3 == 0)
            sys.stdout.write(f"{case.kind}: {told}\n")
        return 0
    started = time.monotonic()
    tally = run_all(options, all_seeds)
    show(tally, options, time.monotonic() - started)
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
