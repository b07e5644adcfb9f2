import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from varshift_cli import __version__
from varshift_cli.cli import main

COMMANDS = [(), ("scan",), ("fix",), ("inspect",), ("check",), ("report",), ("explain",)]


@pytest.fixture(autouse=True)
def _screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_fits_a_screen(run, command, option):
    """Every help fits a screen of 80 by 48, and ends in an example."""
    ended = run(*command, option)

    lines = ended.out.rstrip().splitlines()
    assert ended.code == 0
    assert len(lines) <= 48
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert lines[-1].strip().startswith("Example: varshift ")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_options_keep_to_one_line(run, command):
    """No option's help is so long that it wraps, and no brackets are lost to markup."""
    lines = run(*command, "--help").out.splitlines()

    options = [line for line in lines if line.startswith("│")]
    assert all(line[2] in "-*" or line[2].isalpha() or command == ("explain",) for line in options)


SHARED = {
    *("--arch", "--arch-arg", "--key", "--allow-pickle", "--data", "--data-arg", "--input"),
    *("--label", "--forward", "--noise", "--metric", "--batch-size", "--train-batch-size"),
    *("--samples", "--seed", "--device", "--memory", "--format", "--quiet"),
}
OF_A_MEASUREMENT = {"--metric", "--train-batch-size", "--memory"}


@pytest.mark.parametrize("command", ["scan", "fix", "inspect"])
def test_shared_options(run, command):
    """What chooses model and data is chosen alike everywhere; inspect measures nothing."""
    words = run(command, "--help").out.split()

    assert SHARED & set(words) == SHARED - (OF_A_MEASUREMENT if command == "inspect" else set())


def test_examples_are_possible(run, pipeline):
    """The example of each help is accepted by the command."""
    for command in COMMANDS[1:4]:
        example = run(*command, "--help").out.rstrip().splitlines()[-1]
        arguments = example.split()[2:]
        assert run(*arguments).code == 0


def test_version(run):
    """--version is one line."""
    assert run("--version").out == f"varshift {__version__}\n"


def test_nothing_said(run):
    """Without a command the help is shown."""
    assert "Usage: varshift" in run().out + run().err


def test_unknown_command(run):
    """An unknown command is a usage error."""
    assert run("scam").code == 2


def test_missing_model(run):
    """A missing argument is a usage error."""
    ended = run("scan")

    assert ended.code == 2
    assert "MODEL" in ended.err


def test_help_imports_no_torch():
    """Help answers at once: neither torch nor numpy is imported, by the module or the script."""
    code = (
        "import sys, runpy\nsys.argv = ['varshift', 'scan', '--help']\n"
        "try: runpy.run_module('varshift_cli', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_entry_point():
    """The installed script is this main."""
    scripts = [each for each in entry_points(group="console_scripts") if each.name == "varshift"]
    if not scripts:
        pytest.skip("varshift is not installed here")

    assert scripts[0].load() is main
