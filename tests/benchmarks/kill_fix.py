"""Kill ``varshift fix`` at random moments, and look at what lies on disk then.

    python tests/benchmarks/kill_fix.py [--kills 200] [--seed 0]

A fix runs in a child process, over every container, into a new file and in place, and gets SIGKILL
at a random moment: half of the times anywhere, half of the times once it has begun to write.
After each kill the original must be whole (in place: the original or its verified successor), no
final name may hold a half-written file, and a finished output must be reverted to the bit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.pipeline.test_transaction import KINDS, MODEL, request, write_model
from varshift_cli.loading.containers import patching
from varshift_cli.loading.sidecar import read_sidecar
from varshift_cli.pipeline import fix_checkpoint

ORIGINAL, FIXED = "net.pt", "net.fixed.pt"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """An empty current folder with calibration data and the model's code."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(1)
        np.savez(folder / "calib.npz", x=torch.randn(80, 3, 6, 6).numpy())
        (folder / "code.py").write_text(MODEL, encoding="utf-8")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(home)


@dataclass(frozen=True)
class Case:
    """One container, into a new file or in place."""

    kind: str
    in_place: bool
    content: bytes
    """Of the original: some containers differ from one save to the next."""
    before: str
    """Digest of the original."""
    after: str
    """Digest of what a fix that is left alone writes."""
    seconds: float
    writing: float
    """Of these the last ones, from the first byte written."""


def prepare(folder: Path, kind: str, *, in_place: bool) -> Case:
    """Run the fix once, undisturbed."""
    clean(folder)
    write_model(kind, folder / ORIGINAL)
    content = (folder / ORIGINAL).read_bytes()
    before = digest(folder / ORIGINAL)
    began = time.perf_counter()
    marks: list[float] = []
    with marked(lambda: marks.append(time.perf_counter())):
        record = fix_checkpoint(request(ORIGINAL, kind=kind, in_place=in_place))
    ended = time.perf_counter()
    return Case(
        kind,
        in_place,
        content,
        before,
        str(record.output_sha256),
        ended - began,
        ended - marks[0],
    )


@contextlib.contextmanager
def marked(tell: object) -> Iterator[None]:
    """Tell when writing begins."""
    original = patching.write_patched

    def write(*args: object, **options: object) -> object:
        tell()  # type: ignore[operator]
        return original(*args, **options)  # type: ignore[arg-type]

    patching.write_patched = write  # type: ignore[assignment]
    try:
        yield
    finally:
        patching.write_patched = original


def killed(case: Case, *, delay: float, from_writing: bool) -> bool:
    """Run the fix in a child and kill it; whether the kill came before its end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.close(reader)
            with marked(lambda: os.write(writer, b"w")):
                if not from_writing:
                    os.write(writer, b"s")
                fix_checkpoint(request(ORIGINAL, kind=case.kind, in_place=case.in_place))
            code = 0
        os._exit(code)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def inspect(folder: Path, case: Case) -> str:
    """What the kill left behind; raises AssertionError if that is not as it should be."""
    original = digest(folder / ORIGINAL)
    output = folder / (ORIGINAL if case.in_place else FIXED)
    assert original == case.before or (case.in_place and original == case.after)
    backup = folder / f"{ORIGINAL}.original"
    if backup.exists():
        assert digest(backup) == case.before
    sidecar = output.with_suffix(".varshift")
    if sidecar.exists():
        assert read_sidecar(sidecar).provenance.output_sha256 == case.after
    if not output.exists() or (case.in_place and original == case.before):
        return "original whole, nothing else"
    assert digest(output) == case.after
    assert sidecar.exists()
    backup.unlink(missing_ok=True)
    back = fix_checkpoint(request(output.name, method="revert", in_place=case.in_place))
    assert digest(Path(str(back.output))) == case.before
    return "finished, and reverted to the bit"


def clean(folder: Path) -> None:
    """Only data and code stay."""
    for path in folder.iterdir():
        if path.name not in {"calib.npz", "code.py"}:
            path.unlink()


def campaign(kills: int, seed: int, kinds: tuple[str, ...] = KINDS) -> Counter[str]:
    """Kill as many fixes; how they ended."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    ends: Counter[str] = Counter()
    with workplace() as folder:
        cases = [prepare(folder, kind, in_place=place) for kind in kinds for place in (False, True)]
        while sum(ends.values()) < kills:
            case = cases[sum(ends.values()) % len(cases)]
            clean(folder)
            (folder / ORIGINAL).write_bytes(case.content)
            from_writing = chance.random() < 0.5
            length = case.writing if from_writing else case.seconds
            in_time = killed(case, delay=chance.random() * length, from_writing=from_writing)
            if in_time:
                ends[inspect(folder, case)] += 1
    return ends


def main() -> None:
    """Print how the kills ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for end, times in campaign(arguments.kills, arguments.seed).items():
        print(f"{times:4} x {end}")


if __name__ == "__main__":
    sys.exit(main())
