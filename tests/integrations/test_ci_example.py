"""The page on CI: settings are read, the workflow fits the action, commands are possible."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import varshift_cli
from tests import samples
from varshift_cli.cli import main
from varshift_cli.config import load_config
from varshift_cli.report import FORMATS, to_json

ROOT = Path(varshift_cli.__file__).parents[1]
CI = ROOT / "examples" / "ci"
PAGE = (CI / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
] + re.findall(r"`(varshift (?:check|report) [^`]+)`", PAGE)


def test_settings_are_read():
    """The example's settings file is one, and holds what the page tells of."""
    config = load_config(CI)

    assert config.samples == "auto"
    assert config.policy.max_shift == 1.25
    assert config.policy.layers[0].pattern == "body.*.bn1"
    assert config.suppress[0].reason


def test_workflow_fits_the_action():
    """The workflow gives the action inputs that it has, and takes outputs that it has."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    text = (CI / "varshift.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["scan"]["steps"]
    (step,) = (each for each in steps if each.get("id") == "varshift")

    assert set(step["with"]) <= set(action["inputs"])
    outputs = re.findall(r"steps\.varshift\.outputs\.([\w-]+)", text)
    assert set(outputs) <= set(action["outputs"])


def test_hooks_are_there():
    """The page names hooks that there are."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

    assert set(re.findall(r"id: (varshift-\w+)", PAGE)) <= {each["id"] for each in hooks}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_possible(command, tmp_path, monkeypatch, pipeline):
    """Every command of the page is accepted, and ends with a verdict."""
    monkeypatch.chdir(tmp_path)
    for name in ("report.json", "base.json"):
        Path(name).write_text(to_json(samples.shifted()), encoding="utf-8")

    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])

    assert ended.value.code in {0, 1}


def test_formats_are_there():
    """The page names report files whose suffix stands for a format."""
    suffixes = {suffix for each in FORMATS.values() for suffix in each.suffixes}

    assert {f".{each}" for each in re.findall(r"\w+\.(json|md|xml|html)\b", PAGE)} <= suffixes
