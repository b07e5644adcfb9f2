import io
import os
import sys

import pytest

from varshift_cli.cli.output import complain, has_colour, remark, style_of
from varshift_cli.report import PLAIN, Style


class Stream(io.StringIO):
    """A stream that is a terminal, or is not, with an encoding."""

    def __init__(self, *, terminal, encoding="utf-8"):
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return self._terminal


TERMINAL = Stream(terminal=True)
PIPE = Stream(terminal=False)


def test_pipe():
    """A pipe gets width 100, no colour, and names that are never broken."""
    assert style_of(PIPE) == PLAIN


@pytest.mark.parametrize(("columns", "width"), [(120, 120), (80, 80), (10, 40)])
def test_terminal(monkeypatch, columns, width):
    """A terminal gets its own width, within reason, colours, and folded names."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    monkeypatch.setenv("TERM", "xterm")

    assert style_of(TERMINAL) == Style(width, colour=True, fold=True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_poor_encodings(encoding):
    """Where block characters cannot be written, bars are made of #."""
    assert style_of(Stream(terminal=False, encoding=encoding)).ascii_only


@pytest.mark.parametrize(
    ("stream", "settings", "colour"),
    [
        (TERMINAL, {"TERM": "xterm"}, True),
        (TERMINAL, {"TERM": "dumb"}, False),
        (TERMINAL, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (TERMINAL, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (PIPE, {"TERM": "xterm"}, False),
        (PIPE, {"FORCE_COLOR": "1"}, True),
        (PIPE, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(monkeypatch, stream, settings, colour):
    """Colours follow the terminal, FORCE_COLOR, and above all NO_COLOR."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    assert has_colour(stream) is colour


LONG = "the file /data/experiments/2024/resnet18-with-dropout.pt holds tensors only\nsecond line"


def test_errors_are_folded_at_words(monkeypatch):
    """On a terminal nothing is cut inside a word, what follows is indented, and no path broken."""
    stderr = Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr("shutil.get_terminal_size", lambda _: os.terminal_size((40, 24)))
    monkeypatch.setenv("NO_COLOR", "1")

    complain(LONG, "Give --arch model.py:Net, which builds it.")
    remark("running code: model.py:build (--arch), data.py:loader (--data)")

    assert stderr.getvalue() == (
        "error: the file\n"
        "       /data/experiments/2024/resnet18-with-dropout.pt\n"
        "       holds tensors only\n"
        "       second line\n"
        "hint:  Give --arch model.py:Net, which\n"
        "       builds it.\n"
        "running code: model.py:build (--arch),\n"
        "  data.py:loader (--data)\n"
    )


def test_errors_in_a_pipe_are_not_folded(monkeypatch):
    """A file or pipe has no width."""
    stderr = Stream(terminal=False)
    monkeypatch.setattr(sys, "stderr", stderr)

    complain(LONG, None)

    assert stderr.getvalue() == f"error: {LONG.splitlines()[0]}\n       second line\n"


def test_colour_of_a_folded_error(monkeypatch):
    """The label alone is coloured, and its colour takes no room."""
    stderr = Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr("shutil.get_terminal_size", lambda _: os.terminal_size((40, 24)))
    monkeypatch.setenv("FORCE_COLOR", "1")

    complain("x" * 30 + " " + "y" * 30, None)

    expected = f"\x1b[1;31merror: \x1b[0m{'x' * 30}\n       {'y' * 30}\n"
    assert stderr.getvalue() == expected
