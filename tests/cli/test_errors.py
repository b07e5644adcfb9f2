import errno
import subprocess
import sys
from pathlib import Path

import pytest

from varshift_cli.errors import (
    ArchitectureError,
    CheckpointNotFoundError,
    DataError,
    NothingToMeasureError,
    WriteError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointNotFoundError("there is no model.pt"), 2),
        (ArchitectureError("model.py has no build"), 2),
        (DataError("sample 3 is NaN"), 2),
        (WriteError("no space"), 2),
        (NothingToMeasureError("no BatchNorm"), 3),
    ],
)
def test_own_errors(run, pipeline, error, code):
    """A problem of the user's is one message on stderr, with the exit code of its class."""
    pipeline.error = error

    ended = run("scan", "model.pt")

    assert (ended.code, ended.out, ended.err) == (code, "", f"error: {error.message}\n")


def test_hint_and_lines(run, pipeline):
    """Several lines and the hint are aligned; control characters are written out."""
    pipeline.error = DataError("first\nsecond \x1b[31m", hint="try\nthis")

    expected = "error: first\n       second \\x1b[31m\nhint:  try\n       this\n"
    assert run("scan", "model.pt").err == expected


def test_colour(run, pipeline, monkeypatch):
    """Where colours are wanted the label has one."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipeline.error = DataError("no")

    assert run("scan", "model.pt").err == "\x1b[1;31merror: \x1b[0mno\n"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        EOFError("end"),
        OSError(errno.EPIPE, "broken"),
        RuntimeError("mat1 and mat2"),
        AssertionError(),
    ],
)
def test_bugs(run, pipeline, error):
    """Whatever else goes wrong is called a bug, exits 70, and never looks like a failed gate."""
    pipeline.error = error

    ended = run("scan", "model.pt", "--max-shift", "1.25")

    assert (ended.code, ended.out) == (70, "")
    assert ended.err.startswith(f"error: internal error: {type(error).__name__}")
    assert "please report it" in ended.err
    assert len(ended.err.splitlines()) == 2
    assert "Traceback" not in ended.err


def test_debug(run, pipeline, monkeypatch):
    """VARSHIFT_DEBUG=1 shows the traceback as well."""
    monkeypatch.setenv("VARSHIFT_DEBUG", "1")
    pipeline.error = KeyError("x")

    assert "Traceback (most recent call last)" in run("scan", "model.pt").err


def test_interrupted(run, pipeline):
    """Ctrl-C exits 130 in one line."""
    pipeline.error = KeyboardInterrupt()

    ended = run("scan", "model.pt")

    assert (ended.code, ended.out, ended.err) == (130, "", "error: interrupted\n")


def test_interrupted_while_the_arguments_are_read(run, monkeypatch):
    """So it is before the command begins, where Typer exits without a word."""

    def press(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.echo", press)

    ended = run("--version")

    assert (ended.code, ended.out, ended.err) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("code", [None, 0, 1, "bye"])
def test_exit_of_the_users_code(run, pipeline, code):
    """sys.exit() in the user's code passes neither for a pass nor for a failure."""
    pipeline.error = SystemExit(code)

    ended = run("scan", "model.pt")

    assert ended.code == 2
    assert "called sys.exit" in ended.err


def test_out_of_memory(run, pipeline):
    """Running out of memory is told with what to try."""
    pipeline.error = MemoryError()

    ended = run("scan", "model.pt")

    assert ended.code == 2
    assert "--batch-size" in ended.err


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (("scan", ""), "MODEL"),
        (("fix", "", "--revert"), "MODEL"),
        (("inspect", ""), "MODEL"),
        (("lint", ""), "MODEL"),
        (("diff", "a.pt", ""), "B"),
        (("check", ""), "REPORT"),
        (("explain", ""), "CODE"),
        (("fix", "model.pt", "--output", ""), "--output"),
        (("scan", "model.pt", "--train-data", ""), "--train-data"),
        (("scan", "model.pt", "--report", "a.json", "--report", ""), "--report"),
    ],
)
def test_empty_words(run, pipeline, arguments, called):
    """An empty word is refused, and neither the current folder nor an option left out."""
    ended = run(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {called} is empty\n")
    assert pipeline.requests == []


@pytest.fixture
def varshift(tmp_path):
    """Run varshift in a shell, as users do."""
    program = f'"{sys.executable}" -m varshift_cli'

    def call(command):
        line = command.replace("varshift", program)
        script = ["bash", "-c", f"set -o pipefail; {line}"]
        return subprocess.run(script, capture_output=True, text=True, check=False, cwd=tmp_path)

    return call


def test_reader_that_stops(varshift):
    """A reader that stops reading early is no error."""
    done = varshift("varshift explain VS101 | true")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_device(varshift):
    """A report that cannot be written to stdout is an error, told once."""
    done = varshift("varshift explain > /dev/full")

    expected = "error: stdout cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_closed_stderr(varshift):
    """Remarks that nobody can read are no reason to fail."""
    assert varshift("varshift explain VS999 2>&-").returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_encodings(varshift, encoding):
    """Every screen can be written in any encoding."""
    done = varshift(f"PYTHONIOENCODING={encoding} varshift explain VS210")

    assert (done.returncode, done.stderr) == (0, "")
