"""The GitHub Action's own scripts, run as its runner runs them; and the pre-commit hooks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import varshift_cli
from tests import samples
from tests.nets import Mlp, warmed_up
from varshift_cli.cli.app import program_for
from varshift_cli.report import from_json, to_json

ROOT = Path(varshift_cli.__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


@pytest.fixture
def project(tmp_path):
    """A folder with a network, its checkpoint and its data; and varshift on the PATH."""
    torch.manual_seed(0)
    x = torch.randn(512, 12)
    folder = tmp_path / "my project"
    folder.mkdir()
    torch.save(warmed_up(Mlp(), x).state_dict(), folder / "net.pt")
    torch.save(x, folder / "x.pt")
    (folder / "net.py").write_text(f"from tests.nets import Mlp\nROOT = {str(ROOT)!r}\n", "utf-8")
    shim = tmp_path / "bin" / "varshift"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m varshift_cli "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    return folder


class Runner:
    """As much of GitHub's runner as the action needs."""

    def __init__(self, folder, **inputs):
        self.folder = folder
        self.files = {name: folder.parent / name for name in ("OUTPUT", "STEP_SUMMARY")}
        self.inputs = {name: each.get("default", "") for name, each in ACTION["inputs"].items()}
        self.inputs |= {name.replace("_", "-"): value for name, value in inputs.items()}

    @property
    def outputs(self):
        lines = self.files["OUTPUT"].read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def run(self, name):
        return self.run_step(STEPS[name])

    def run_step(self, step):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{self.folder.parent / 'bin'}:{os.environ['PATH']}",
            **{f"GITHUB_{each}": str(path) for each, path in self.files.items()},
            **{key: self._value(value) for key, value in step.get("env", {}).items()},
        }
        # As the runner does it: a script file, bash with -e and pipefail.
        script = self.folder.parent / "script.sh"
        script.write_text(step["run"], encoding="utf-8")
        return subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def _value(self, expression):
        known = {f"inputs.{name}": value for name, value in self.inputs.items()}
        known |= {f"steps.scan.outputs.{k}": v for k, v in self._so_far().items()}
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known.get(found[1], ""), expression)

    def _so_far(self):
        return self.outputs if self.files["OUTPUT"].exists() else {}


def test_scan_summary_and_gate(project):
    """A net beyond the threshold: reports, summary and annotations are there, the gate fails."""
    runner = Runner(
        project,
        model="net.pt",
        arch="net.py:Mlp",
        data="x.pt",
        max_shift="1.25",
        args="--samples\n512\n\n--seed\n1",
    )

    scan = runner.run("Scan")
    gate = runner.run("Gate")

    assert scan.returncode == 0, scan.stderr
    assert (runner.outputs["exit-code"], gate.returncode) == ("1", 1)
    report = from_json(Path(runner.outputs["report"]).read_text(encoding="utf-8"))
    assert (report.calibration.samples, report.calibration.seed) == (512, 1)
    assert Path(runner.outputs["sarif"]).is_file()
    summary = runner.files["STEP_SUMMARY"].read_text(encoding="utf-8")
    assert report.verdict.worst_layer in summary
    assert "::" in scan.stdout  # an annotation


def test_unusable_input_fails(project):
    """Without a report to show the gate fails all the same; an old report is not taken for new."""
    (project / "varshift-report.json").write_text("{}", encoding="utf-8")
    runner = Runner(project, model="none.pt", max_shift="1.25")

    scan = runner.run("Scan")

    assert scan.returncode == 0
    assert "none.pt" in scan.stderr
    assert runner.outputs == {"exit-code": "2"}
    assert runner.run("Gate").returncode == 2
    assert (project / "varshift-report.json").read_text(encoding="utf-8") == "{}"


def test_a_report_over_the_baseline_is_refused_and_the_baseline_kept(project):
    """A report named like the baseline: exit 2, and the baseline is still there."""
    base = project / "base.json"
    base.write_text(to_json(samples.shifted()), encoding="utf-8")
    kept = base.read_bytes()
    runner = Runner(project, model="net.pt", baseline="base.json", report="base")

    assert runner.run("Scan").returncode == 0
    assert runner.outputs == {"exit-code": "2"}
    assert base.read_bytes() == kept


def test_a_step_of_your_own(project):
    """The step in examples/ci: annotations on stdout, the summary, and the exit code."""
    text = (ROOT / "examples" / "ci" / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    settings = 'arch = "net.py:Mlp"\ndata = "x.pt"\nno-attribute = true\n'
    (project / "varshift.toml").write_text(settings, encoding="utf-8")
    (project / "net.pt").rename(project / "model.pt")
    runner = Runner(project)

    done = runner.run_step({"run": script})

    assert done.returncode == 1, done.stderr
    assert all(line.startswith("::") for line in done.stdout.splitlines())
    assert "varshift: FAIL" in runner.files["STEP_SUMMARY"].read_text(encoding="utf-8")
    (project / "model.pt").unlink()
    (project / "report.md").unlink()
    assert runner.run_step({"run": script}).returncode == 2


def test_inputs_are_no_code(project):
    """No input can become part of a script, whatever it holds."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
    hostile = 'x"; touch pwned; $(touch pwned) `touch pwned` #'
    runner = Runner(project, model=hostile, arch=hostile, args=hostile, report=hostile)

    runner.run("Scan")

    assert not (project / "pwned").exists()


def test_every_input_is_documented_and_used():
    """Each input says what it is, and reaches a step."""
    text = (ROOT / "action.yml").read_text(encoding="utf-8")

    for name, each in ACTION["inputs"].items():
        assert each["description"]
        assert f"inputs.{name}" in text
    for step in ACTION["runs"]["steps"]:
        assert "shell" in step or "uses" in step


def test_hooks_are_commands():
    """Each pre-commit hook calls a command that there is."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    commands = {each.callback.__name__ for each in program_for(()).registered_commands}

    for hook in hooks:
        program, command = hook["entry"].split()
        assert program == "varshift"
        assert command in commands
        assert hook["id"] == f"varshift-{command}"
