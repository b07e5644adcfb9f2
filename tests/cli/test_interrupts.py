"""Ctrl-C as a user presses it: on the whole process, from its first second to its last."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.loading.files import ARCH, digest, write


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.5, 2.2, 3.0])
def test_ctrl_c(tmp_path, seconds):
    """Exit code 130 and one line, or the work was done before; never a traceback or half a file."""
    write("zip", tmp_path / "model.pt")
    (tmp_path / "model.py").write_text(ARCH, encoding="utf-8")
    np.savez(tmp_path / "calib.npz", x=torch.randn(3000, 3).numpy())
    before = digest(tmp_path / "model.pt")
    command = [
        sys.executable, "-m", "varshift_cli", "fix", "model.pt", "--arch", "model.py:Net",
        "--data", "calib.npz", "--recalibrate", "--force", "--batch-size", "1", "--samples", "3000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)

    assert process.returncode in {130, 0, -signal.SIGINT}, told
    # Before any of our code runs, Python itself ends by the signal.
    assert process.returncode != -signal.SIGINT or "running code" not in told
    if process.returncode == 130:
        assert "Traceback" not in told
        assert told.strip().endswith("interrupted") or "running code" not in told
    assert digest(tmp_path / "model.pt") == before
    left = {each.name for each in tmp_path.iterdir()} - {"__pycache__"}
    assert left - {"model.pt", "model.py", "calib.npz"} in (
        set(),
        {"model.fixed.pt", "model.fixed.varshift"},
    )


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("command", ["scan", "fix", "inspect", "lint", "diff"])
def test_ctrl_c_while_torch_is_imported(tmp_path, command):
    """It waits: raised in the middle of torch's C++ it would abort the process."""
    write("zip", tmp_path / "model.pt")  # lint and diff look at the file before they need torch
    (tmp_path / "torch.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('imported')\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "varshift_cli", command, *["model.pt"] * (1 + (command == "diff"))],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert "imported" in done.stdout
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
