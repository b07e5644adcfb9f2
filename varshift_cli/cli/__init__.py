"""The command line: parse, call the pipeline, render, exit. The only room that prints and exits.

Commands import what they use when they are called, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``varshift`` and exit with its code.

    Args:
        argv: The arguments; those of the process by default.
    """
    _open_missing_streams()
    try:
        from varshift_cli.cli.app import program_for
        from varshift_cli.cli.errors import note_interrupts, told

        if argv is None:  # this process is ours
            note_interrupts()
            # While Python shuts down all is done and told: Ctrl-C changes the exit code no more.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        with told():
            arguments = list(sys.argv[1:] if argv is None else argv)
            program_for(arguments)(args=arguments, prog_name="varshift")
    except KeyboardInterrupt:  # while modules were imported, or while an error was told
        sys.stderr.write("error: interrupted\n")
        raise SystemExit(130) from None
    finally:
        if argv is None:  # what users' code prints at shutdown comes behind the report
            sys.stdout = sys.stderr
    raise SystemExit(0)


def _open_missing_streams() -> None:
    """Give a process started without stdout or stderr (``2>&-``) streams that swallow all."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
