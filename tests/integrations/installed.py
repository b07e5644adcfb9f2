"""Try plugin, loop, callback and hook in a small project, from the installed wheel.

    python tests/integrations/installed.py VENV/bin/python

VENV holds the wheel and torch; with pytest, lightning, pytorch_lightning, pre-commit and IPython
in it too each part is tried, else it is said to be missing. Prints a line per part; exits 1 if
one does not do what it should.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NET = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Dropout(p), nn.BatchNorm1d(16), nn.Linear(16, 2)
        )

    def forward(self, x):
        return self.body(x)


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(512, 8, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def loader():
    return DataLoader(data(), batch_size=64, shuffle=True)


def train(model, epochs=8, each=lambda: None):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(epochs):
        for x, y in loader():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        each()
    return model
"""
TESTS = """
import pytest
from net import Net, loader, train


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_statistics_hold_in_eval(assert_variance_shift, p):
    assert_variance_shift(train(Net(p)), loader(), max_shift=1.25)
"""
LOOP = """
from net import Net, loader, train
from varshift_cli import ShiftMonitor

model = Net()
monitor = ShiftMonitor(model, loader(), every=4, log=lambda *told: print("logged", *told))
train(model, each=monitor.step)
print(monitor.report)
"""
CALLBACK = """
import warnings
warnings.simplefilter("ignore")
import {package} as pl
import torch
from net import Net, loader
from varshift_cli.integrations.lightning import VarianceShiftCallback


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


callback = VarianceShiftCallback(every=3)
trainer = pl.Trainer(
    max_epochs=6, accelerator="cpu", callbacks=[callback], logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(Module(), loader())
print("epochs", [point.epoch for point in callback.monitor.history])
print("metric", float(trainer.callback_metrics["varshift/worst_shift"]))
assert isinstance(callback, pl.Callback)
"""
NOTEBOOK = """
from IPython.core.formatters import DisplayFormatter
from net import Net, loader, train
from varshift_cli import scan

data, _ = DisplayFormatter().format(scan(train(Net()), loader()))
print(sorted(data), data["text/html"][:4])
"""
HOOK = """
repos:
  - repo: {repository}
    rev: HEAD
    hooks:
      - id: varshift-scan
        args: [net.pt, --arch, "net.py:Net", --data, "net.py:data", --max-shift, "{threshold}"]
"""


class Project:
    """The small project, in a folder of its own, without this checkout on its path."""

    def __init__(self, python, folder):
        self.python, self.folder = python, folder
        (folder / "net.py").write_text(NET, encoding="utf-8")

    def run(self, *command):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment["PATH"] = f"{Path(self.python).parent}:{environment['PATH']}"
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def code(self, text):
        return self.run(self.python, "-c", text)

    def has(self, module):
        return self.code(f"import {module}").returncode == 0


def pytest_plugin(project):
    (project.folder / "test_net.py").write_text(TESTS, encoding="utf-8")
    done = project.run(project.python, "-m", "pytest", "-q", "-p", "no:randomly", "--color=no")
    return done, (
        done.returncode == 1
        and "1 failed, 1 passed" in done.stdout
        and "FAIL      worst body.3, shift" in done.stdout
    )


def plain_loop(project):
    done = project.code(LOOP)
    return done, done.stdout.count("logged varshift/worst_shift") == 2 and "body.3" in done.stdout


def notebook(project):
    done = project.code(NOTEBOOK)
    return done, "['text/html', 'text/plain'] <pre" in done.stdout


def callback(package):
    def tried(project):
        done = project.code(CALLBACK.format(package=package))
        return done, done.returncode == 0 and "epochs [3, 6]\nmetric " in done.stdout

    return tried


def hook(project):
    save = "import torch; from net import *; torch.save(train(Net()).state_dict(), 'net.pt')"
    project.code(save)
    repository = Path(__file__).parents[2]
    project.run("git", "init", "-q")
    outcomes = []
    for threshold in ("9", "1.1"):
        text = HOOK.format(repository=repository, threshold=threshold)
        (project.folder / ".pre-commit-config.yaml").write_text(text, encoding="utf-8")
        project.run("git", "add", "-A")
        outcomes.append(project.run("pre-commit", "run", "--all-files"))
    passed, failed = outcomes
    good = passed.returncode == 0 and failed.returncode == 1 and "FAIL" in failed.stdout
    return failed if passed.returncode == 0 else passed, good


PARTS = (
    ("pytest plugin", "pytest", pytest_plugin),
    ("plain loop", "torch", plain_loop),
    ("notebook", "IPython", notebook),
    ("lightning", "lightning", callback("lightning.pytorch")),
    ("pytorch_lightning", "pytorch_lightning", callback("pytorch_lightning")),
    ("pre-commit hook", "pre_commit", hook),
)


def main() -> int:
    """Try each part; the exit code."""
    bad = 0
    for name, needs, part in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            # Not through links: a virtual environment is known by the path of its python.
            project = Project(str(Path(sys.argv[1]).absolute()), Path(folder))
            if not project.has(needs):
                print(f"{name:20}{needs} is not installed")
                continue
            done, good = part(project)
            bad += not good
            print(f"{name:20}{'as it should' if good else 'NOT as it should'}")
            if not good:
                print(done.stdout[-2000:], done.stderr[-2000:])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
