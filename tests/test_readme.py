"""README's commands print what README shows.

``python tests/test_readme.py --update`` writes today's output into README.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.nets import Mlp

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<output>.*?)```", re.DOTALL)
PYTHON = re.compile(r"<!-- test: python -->\n```python\n(?P<code>.*?)```", re.DOTALL)


def run(command: str, folder: Path) -> str:
    """The output of a README command, in a terminal 100 columns wide."""
    words = command.split()
    programs = {"varshift": ["-m", "varshift_cli"], "python": []}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, *programs[words[0]], *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip() + "\n"


def example(folder: Path) -> Path:
    """A copy of the example, so that nothing is written into the repository."""
    return Path(shutil.copytree(ROOT / "examples" / "digits", folder / "digits"))


def test_console_blocks_show_real_output(tmp_path: Path) -> None:
    """Every command in a console block prints, byte for byte, what stands below it."""
    folder = example(tmp_path)
    blocks = list(CONSOLE.finditer(README.read_text("utf-8")))
    assert len(blocks) >= 3
    for block in blocks:
        assert run(block["command"], folder) == block["output"]


def test_the_example_gains_and_update_bn_does_not() -> None:
    """The shown accuracies: recalibration gains at least 5 points, update_bn less than 3."""
    blocks = CONSOLE.finditer(README.read_text("utf-8"))
    shown = next(block["output"] for block in blocks if "compare" in block["command"])
    as_is, update_bn, recalibrated = (float(x) for x in re.findall(r"([\d.]+)%", shown))
    assert recalibrated - as_is >= 5
    assert update_bn - as_is < 3


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The Python block runs on a live model and loader."""
    code = PYTHON.search(README.read_text("utf-8"))
    assert code is not None
    torch.manual_seed(0)
    names = {"model": Mlp(), "loader": [torch.randn(32, 12) for _ in range(4)]}
    exec(compile(code["code"], "README.md", "exec"), names)  # noqa: S102 - our own README
    assert "body." in capsys.readouterr().out


def update() -> None:
    """Write today's output into README.md."""
    with tempfile.TemporaryDirectory() as folder:
        digits = example(Path(folder))
        text = CONSOLE.sub(
            lambda block: f"```console\n$ {block['command']}\n{run(block['command'], digits)}```",
            README.read_text("utf-8"),
        )
    README.write_text(text, "utf-8")


if __name__ == "__main__" and "--update" in sys.argv:
    update()
