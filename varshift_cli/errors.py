"""Every exception varshift raises on purpose.

Each message says what was expected, what was found, where, and what to try next. The command
line maps each class to one exit code (``exit_code``); anything that is not a ``VarshiftError``
is a bug of ours and exits 70.
"""

from __future__ import annotations

from typing import ClassVar


class VarshiftError(Exception):
    """Base class: a problem that the user can act on.

    Args:
        message: What was expected, what was found, and where.
        hint: What to try next; shown on a line of its own.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UsageError(VarshiftError):
    """Options that contradict each other or cannot be understood."""


class ConfigError(UsageError):
    """``varshift.toml`` or ``[tool.varshift]`` holds something unusable."""


class CheckpointError(VarshiftError):
    """The checkpoint cannot be read: missing, damaged, refused, or of another kind."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no file at the given path."""


class ArchitectureError(VarshiftError):
    """``--arch`` cannot be imported, called, or does not fit the checkpoint."""


class DataError(VarshiftError):
    """The calibration data are missing, empty, of the wrong shape, or not finite."""


class ForwardError(VarshiftError):
    """The model's forward raised; says in which layer and on which batch."""


class NothingToMeasureError(VarshiftError):
    """No BatchNorm layer with running statistics was reached."""

    exit_code: ClassVar[int] = 3


class ReportError(VarshiftError):
    """A saved report cannot be read, or a report cannot be rendered or written."""


class FixDeclinedError(VarshiftError):
    """A repair was refused, or rejected by its own verification; nothing was written."""

    exit_code: ClassVar[int] = 5


class WriteError(VarshiftError):
    """A file could not be written; the original is untouched."""


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in Python, or in torch on a CPU or a GPU.

    On a CPU torch raises a plain RuntimeError, which its message alone tells from others.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(words in text for words in _OUT_OF_MEMORY)
