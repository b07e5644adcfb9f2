import sys

import pytest

from tests.cli.test_output import Stream
from varshift_cli.cli import progress
from varshift_cli.records import SilentProgress


def use(bars):
    bars.start("measuring", 3)
    bars.advance()
    bars.advance(2)
    bars.finish()
    bars.start("writing [bold]", 1)
    bars.advance()


def terminal(monkeypatch):
    """Make stderr a terminal, and patience over at once.

    No fixture: pytest puts its own stderr back between the set-up of a test and the test.
    """
    stream = Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    return stream


@pytest.mark.parametrize("quiet", [True, False])
def test_silent_without_a_terminal(monkeypatch, quiet):
    """Where stderr is no terminal there is no progress."""
    monkeypatch.setattr(sys, "stderr", Stream(terminal=False))

    with progress.progress_on_stderr(quiet=quiet) as bars:
        use(bars)

    assert isinstance(bars, SilentProgress)
    assert sys.stderr.getvalue() == ""


def test_quiet(monkeypatch):
    """Quiet is silent on a terminal too."""
    stderr = terminal(monkeypatch)

    with progress.progress_on_stderr(quiet=True) as bars:
        use(bars)

    assert stderr.getvalue() == ""


def test_patience(monkeypatch):
    """What is done within a second shows nothing."""
    stderr = terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 60.0)

    with progress.progress_on_stderr(quiet=False) as bars:
        use(bars)

    assert stderr.getvalue() == ""


def test_shown(monkeypatch):
    """What takes longer shows its stage and steps, and markup in a stage is plain text."""
    stderr = terminal(monkeypatch)

    with progress.progress_on_stderr(quiet=False) as bars:
        use(bars)

    assert "measuring" in stderr.getvalue()
    assert "0/3" in stderr.getvalue()
    assert "writing [bold]" in stderr.getvalue()


def test_gone_after_an_error(monkeypatch):
    """An error ends the display, and the cursor is given back."""
    stderr = terminal(monkeypatch)
    bars = progress.TerminalProgress()

    def fail():
        bars.start("measuring", 3)
        raise ValueError("no")

    monkeypatch.setattr(progress, "TerminalProgress", lambda: bars)
    with pytest.raises(ValueError, match="no"), progress.progress_on_stderr(quiet=False):
        fail()

    assert "\x1b[?25h" in stderr.getvalue()
