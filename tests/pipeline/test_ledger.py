"""Whatever goes wrong, and whenever: nothing is left on disk, in torch's state, or half-written."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.nets import Mlp, warmed_up
from varshift_cli.errors import VarshiftError
from varshift_cli.loading import sidecar
from varshift_cli.loading.containers import patching, replacing
from varshift_cli.pipeline import fix_checkpoint, inspect_checkpoint, scan_checkpoint, writing
from varshift_cli.records import FixRequest, ScanRequest

ARCH = f"{Path(__file__).parents[1] / 'nets.py'}:Mlp"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint and its data."""
    torch.manual_seed(0)
    x = torch.randn(96, 12)
    torch.save(warmed_up(Mlp(), x).state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "calib.npz", x=x.numpy())
    return tmp_path


def request_of(folder: Path, **more: object) -> ScanRequest:
    given = {"arch": ARCH, "data": str(folder / "calib.npz"), "batch_size": 32, **more}
    return ScanRequest(str(folder / "model.pt"), **given)


def fix(folder: Path, **more: object):
    return fix_checkpoint(FixRequest(request_of(folder), "recalibrate", **more))


def files_in(folder: Path) -> dict[str, str]:
    """Name -> digest of everything in a folder, hidden files too."""
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}


def world() -> tuple[object, ...]:
    """What is global and could be left changed."""
    return (
        hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        random.getstate(),
        str(np.random.get_state()),  # noqa: NPY002 - it is the global one that users draw from
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch._C._len_torch_dispatch_stack(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        tuple(sys.path),
        sys.stdout,
        Path.cwd(),
        _threads(),
        {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)},
    )


def _threads() -> list[threading.Thread]:
    """Those that go on; one that is about to end may take an instant for it."""
    here = threading.current_thread()
    others = [each for each in threading.enumerate() if each is not here]
    for each in others:
        each.join(1.0)
    return [each for each in others if each.is_alive()]


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Files and globals are the same afterwards."""
    files, globals_before = files_in(folder), world()
    yield
    assert files_in(folder) == files
    assert world() == globals_before


STAGES = [
    (patching, "_plan"),
    (patching, "_copy_and_edit"),
    (patching, "compare_bytes"),
    (patching, "compare_tensors"),
    (patching, "publish"),
    (writing, "write_sidecar"),
    (patching.os, "fsync"),
    (patching.shutil, "copymode"),
    (patching.os, "link"),
    (tempfile, "mkstemp"),
]
"""Where a repair can break off."""


def break_off(monkeypatch, place, name: str, error: BaseException, *, after: bool) -> None:
    """Raise at a stage, before it has begun or once it is done."""
    real = getattr(place, name)

    def broken(*args, **kwargs):
        if after:
            real(*args, **kwargs)
        raise error

    monkeypatch.setattr(place, name, broken)


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=["Ctrl-C", "memory", "full disk", "broken disk"],
)
@pytest.mark.parametrize(("place", "name"), STAGES, ids=[name for _, name in STAGES])
def test_a_repair_that_breaks_off(folder, monkeypatch, place, name, error):
    """At whichever stage: no output, no sidecar, no temporary file, the original whole."""
    with nothing_left(folder):
        with monkeypatch.context() as broken:
            break_off(broken, place, name, error, after=False)
            try:
                fix(folder)
            except (VarshiftError, KeyboardInterrupt, MemoryError, OSError):
                ended = True
            else:
                ended = False
        if not ended:  # hard links are not needed, and file modes not worth a failure
            assert name in {"link", "copymode", "fsync"}
            (folder / "model.fixed.pt").unlink()
            (folder / "model.fixed.varshift").unlink()


@pytest.mark.parametrize("name", ["publish", "compare_tensors"])
def test_ctrl_c_right_after_a_stage(folder, monkeypatch, name):
    """The output is there whole with its sidecar, or nothing of either."""
    before = files_in(folder)
    with monkeypatch.context() as broken:
        break_off(broken, patching, name, KeyboardInterrupt(), after=True)
        with pytest.raises(KeyboardInterrupt):
            fix(folder)

    left = files_in(folder).keys() - before.keys()
    assert left in (set(), {"model.fixed.pt", "model.fixed.varshift"})
    assert before.items() <= files_in(folder).items()


@pytest.mark.parametrize("name", ["compare_tensors", "publish"])
def test_an_overwritten_repair_that_breaks_off(folder, monkeypatch, name):
    """With --overwrite the earlier output and its sidecar stay as they were."""
    fix(folder)

    with nothing_left(folder), monkeypatch.context() as broken:
        break_off(broken, patching, name, KeyboardInterrupt(), after=False)
        with pytest.raises(KeyboardInterrupt):
            fix_checkpoint(
                FixRequest(request_of(folder, samples=64), "recalibrate", overwrite=True)
            )


@pytest.mark.parametrize("name", ["_keep", "digest_of", "sync_folder"])
def test_a_repair_in_place_that_breaks_off(folder, monkeypatch, name):
    """In place the checkpoint is the old one or the new one, whole; the old buffers are kept."""
    before = files_in(folder)["model.pt"]
    with monkeypatch.context() as broken:
        break_off(broken, replacing, name, KeyboardInterrupt(), after=True)
        with pytest.raises(KeyboardInterrupt):
            fix(folder, in_place=True)

    after = files_in(folder)
    if after["model.pt"] != before:
        made = sidecar.read_sidecar(folder / "model.varshift").provenance
        assert (made.output_sha256, made.source_sha256) == (after["model.pt"], before)
    assert set(after) - {"model.pt.original"} <= {"model.pt", "calib.npz", "model.varshift"}
    if "model.pt.original" in after:
        assert after["model.pt.original"] == before


@pytest.mark.parametrize("command", [scan_checkpoint, inspect_checkpoint, fix_checkpoint])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_forward_that_raises_in_some_batch(folder, monkeypatch, command, batch):
    """Whatever the forward raises, wherever: nothing is left."""
    calls = iter(range(1000))

    def forward(self, x):
        if next(calls) >= batch:
            raise RuntimeError("no")
        return self.head(self.body(x))

    asked = request_of(folder)
    given = FixRequest(asked, "recalibrate") if command is fix_checkpoint else asked
    monkeypatch.setattr("tests.nets.Mlp.forward", forward, raising=True)
    with nothing_left(folder), pytest.raises(VarshiftError):
        command(_here(given))


def _here(given):
    """The same request on the class that the test has changed."""
    if isinstance(given, FixRequest):
        return replace(given, scan=_here(given.scan))
    return replace(given, arch="tests.nets:Mlp", arch_args=())


def timed(seconds: float):
    """Deliver what Ctrl-C delivers, after a time."""

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return before


# A file that was opened an instant before is closed by the garbage collector, which warns of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("command", ["scan", "fix"])
def test_ctrl_c_at_any_time(folder, heard, command):
    """At 25 moments spread over the run: stopped, and nothing left, or done and all there."""
    asked = request_of(folder)
    run = (lambda: fix(folder)) if command == "fix" else (lambda: scan_checkpoint(asked))
    run()  # what is imported lazily is imported
    started = time.monotonic()
    _clear(folder)
    run()
    whole = time.monotonic() - started
    done = files_in(folder)
    _clear(folder)
    start, stopped = world(), 0
    moments = np.random.default_rng(0).random(25)
    for share in moments:
        before = timed(max(share * whole, 1e-4))
        try:
            try:
                run()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                time.sleep(0)  # a signal that is on its way arrives here, not later
        except KeyboardInterrupt:
            stopped += 1
        signal.signal(signal.SIGALRM, before)
        left = files_in(folder)
        assert left.keys() in ({"model.pt", "calib.npz"}, done.keys()), share
        assert all(left[name] == done[name] for name in left if not name.endswith(".varshift"))
        assert world() == start, share
        _clear(folder)
    assert stopped >= 5


def _clear(folder: Path) -> None:
    for name in ("model.fixed.pt", "model.fixed.varshift"):
        (folder / name).unlink(missing_ok=True)
