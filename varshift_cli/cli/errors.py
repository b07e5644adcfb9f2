"""Every way a command can end badly: one clear block on stderr, and the right exit code.

Typer has its own ideas of some exceptions (an ``EOFError`` or a broken pipe would exit 1, which
here means that the gate failed), so they are dealt with before Typer sees them.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

import typer

from varshift_cli.errors import UsageError, VarshiftError, is_out_of_memory

BUG = 70
INTERRUPTED = 130
UNUSABLE = 2

DEBUG = "VARSHIFT_DEBUG"
"""Set to 1, tracebacks are shown."""

P = ParamSpec("P")
T = TypeVar("T")


def guarded(command: Callable[P, T]) -> Callable[P, T]:
    """The command, with everything that goes wrong in it told and turned into an exit code.

    The user's code runs inside commands, and its ``sys.exit()`` must not pass for a verdict.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with told():
            _refuse_empty(kwargs)
            try:
                return command(*args, **kwargs)
            except SystemExit as error:
                raise UsageError(
                    f"code that was run for this command called sys.exit({error.code!r})",
                    hint="guard it in your file: if __name__ == '__main__':",
                ) from error

    return run


_ARGUMENTS = {"model": "MODEL", "saved": "REPORT", "before": "A", "after": "B", "code": "CODE"}
"""Parameters that are no options, as the help names them."""

_MAY_BE_EMPTY = ("baseline",)
"""Options of which an empty value means something."""


def _refuse_empty(given: Mapping[str, object]) -> None:
    """Refuse an empty word, which could be read as the current folder, or as "not given".

    Raises:
        UsageError: Names the argument or option.
    """
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if "" in values and name not in _MAY_BE_EMPTY:
            called = _ARGUMENTS.get(name) or f"--{name.replace('_', '-')}"
            raise UsageError(f"{called} is empty", hint="Is a variable of your script unset?")


@contextmanager
def told() -> Iterator[None]:
    """Tell of an exception on stderr, and exit by its code."""
    try:
        yield
    except typer.Exit:
        raise
    except SystemExit as ended:
        if ended.code == INTERRUPTED and ended.__cause__ is None:
            _tell(KeyboardInterrupt())  # while Typer read the arguments; it says nothing itself
        raise
    except (Exception, KeyboardInterrupt) as error:
        _debug(error)
        raise SystemExit(_tell(error)) from error


def _tell(error: BaseException) -> int:
    """Say what happened; the exit code."""
    from varshift_cli.cli import output

    if isinstance(error, VarshiftError):
        output.complain(error.message, error.hint)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or _came:
        output.complain("interrupted", None)
        atexit.register(_exit_by_code)
        return INTERRUPTED
    if is_out_of_memory(error):
        output.complain("out of memory", "a smaller --batch-size or fewer --samples need less")
        return UNUSABLE
    told = f"{type(error).__name__}: {error}"
    output.complain(f"internal error: {told}", f"this is a bug in varshift; {_REPORT}")
    return BUG


_came: list[int] = []
"""Interrupts so far. An import that swallows one may leave a half-made module behind, and what
then goes wrong is no bug of ours."""


def note_interrupts() -> None:
    """Remember from now on that Ctrl-C was pressed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _came.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def loading_torch() -> AbstractContextManager[None]:
    """Hold Ctrl-C while torch is imported, unless it is pressed again.

    Raised inside its C++ initialisation it would abort the process, with a dump of the stack.
    """
    from varshift_cli.interrupts import held_interrupts

    return held_interrupts(most=1)


def _exit_by_code() -> None:
    """Let the process end by its exit code.

    After an interrupt that passed through ``exec``, handled or not, CPython ends the process by
    the signal instead; a blocked one it can only report as 130.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


_REPORT = f"please report it, with the command and what it prints under {DEBUG}=1"


def _debug(error: BaseException) -> None:
    if os.environ.get(DEBUG) == "1":
        from varshift_cli.cli import output

        output.say("".join(traceback.format_exception(error)).rstrip())
