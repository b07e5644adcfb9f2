"""Streams and files: reports on stdout, conversation on stderr, report files late and whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from varshift_cli.errors import ReportError, UsageError, WriteError
from varshift_cli.report import PLAIN, Format, Style, choose_format, visible

R = TypeVar("R")
"""What a file is to hold: a report, or what a fix did."""

_NARROWEST = 40


def emit(text: str) -> None:
    """Write a report to stdout.

    A reader that stops reading (``| head``) is no error, and the exit code stays the verdict's.

    Raises:
        WriteError: Stdout cannot take it, for another reason.
    """
    try:
        sys.stdout.write(_printable(text, sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        _discard_stdout()
        if not isinstance(error, BrokenPipeError):
            raise WriteError(f"stdout cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def kept_for_the_report() -> Iterator[None]:
    """While users' code runs, let what it prints go to stderr: stdout is for the report alone.

    This holds for Python's ``print``; what C code or another process writes to descriptor 1 still
    goes there.
    """
    stdout = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def say(text: str) -> None:
    """Write to stderr, as it is; nothing happens where nobody listens."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(_printable(text + "\n", sys.stderr))
        sys.stderr.flush()


def remark(text: str) -> None:
    """Write a remark to stderr, folded at words where that is a terminal."""
    say(_folded(text, "  "))


def complain(message: str, hint: str | None) -> None:
    """Write an error and what to try next to stderr."""
    colour = has_colour(sys.stderr)
    rows = [("error: ", "\x1b[1;31m", message), ("hint:  ", "\x1b[1m", hint)]
    for label, code, text in rows:
        if text is not None:
            lines = [visible(line) for line in text.splitlines()] or [""]
            indent = " " * len(label)
            body = _folded("\n".join(indent + line for line in lines), indent)[len(label) :]
            say((f"{code}{label}\x1b[0m" if colour else label) + body)


def _folded(text: str, indent: str) -> str:
    """Lines no wider than the terminal; a path or command is never broken, so that it is copied.

    Args:
        text: What goes to stderr.
        indent: Put before what did not fit on a line.
    """
    width = _columns(sys.stderr) if sys.stderr.isatty() else None
    if width is None:
        return text
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        for line in text.split("\n")
    )


def _columns(stream: TextIO) -> int:
    """Of the terminal behind a stream, and not of whatever stdout is."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    usual = shutil.get_terminal_size((PLAIN.width, 24)).columns
    return max(columns or usual, _NARROWEST)


def style_of(stream: TextIO) -> Style:
    """How to draw on a stream: a terminal's width and colours, or plain for a file or pipe."""
    ascii_only = not _can_draw(stream)
    colour = has_colour(stream)
    if not stream.isatty():
        return Style(PLAIN.width, colour=colour, ascii_only=ascii_only)
    return Style(_columns(stream), colour=colour, fold=True, ascii_only=ascii_only)


def has_colour(stream: TextIO) -> bool:
    """By the customs of ``NO_COLOR`` and ``FORCE_COLOR``; else on terminals that can."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True, slots=True)
class ReportFile(Generic[R]):
    """A report to write, checked before the work begins."""

    path: str
    target: Path
    """Where ``path`` really points."""
    format: Format[R]

    def write(self, report: R) -> None:
        """Render and write, whole or not at all.

        Raises:
            WriteError: The file cannot be written.
        """
        text = self.format.render(report).encode("utf-8", "backslashreplace")
        try:
            if self.target.exists() and not self.target.is_file():
                self.target.write_bytes(text)  # a device or a pipe is written to, never replaced
            else:
                _replace(self.target, text)
        except OSError as error:
            raise WriteError(f"{self.path} cannot be written: {error.strerror}") from error


def _replace(target: Path, content: bytes) -> None:
    """Write a file whole, or leave it as it was."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def report_files(
    paths: Sequence[str],
    formats: Mapping[str, Format[R]],
    *,
    reserved: Mapping[Path, str],
) -> list[ReportFile[R]]:
    """Check where reports shall go, before any work.

    Args:
        paths: As given on the command line.
        formats: To choose from by the suffix.
        reserved: Resolved paths that no report may overwrite, and what they are.

    Raises:
        ReportError: A suffix stands for no format, or for one that needs what is not installed.
        UsageError: A folder is missing or closed, or two paths are one file.
    """
    taken = dict(reserved)
    files: list[ReportFile[R]] = []
    for path in paths:
        each = ReportFile(path, Path(path).resolve(), choose_format(path, formats))
        if each.target in taken:
            raise UsageError(
                f"--report {path}: this file is {taken[each.target]} already",
                hint="Give the report another name.",
            )
        _check_place(each)
        _check_ready(each)
        taken[each.target] = f"--report {path}"
        files.append(each)
    return files


def _check_ready(file: ReportFile[R]) -> None:
    try:
        file.format.ready()
    except ReportError as error:
        raise ReportError(f"--report {file.path}: {error.message}", hint=error.hint) from error


def the_report(path: str) -> dict[Path, str]:
    """The saved report that a command reads, as :func:`report_files` wants it."""
    return {} if path == "-" else {Path(path).resolve(): "the report that is read"}


def _check_place(file: ReportFile[R]) -> None:
    folder = file.target.parent
    if not folder.is_dir():
        raise UsageError(f"--report {file.path}: there is no folder {folder}")
    if file.target.is_dir():
        raise UsageError(f"--report {file.path}: this is a folder")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--report {file.path}: the folder {folder} is not writable")


def _printable(text: str, stream: TextIO) -> str:
    """The text with what the stream's encoding lacks written out."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _can_draw(stream: TextIO) -> bool:
    try:
        "│━╸▶·".encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, or Python complains of it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
