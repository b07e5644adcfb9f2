"""Whose code is at work: places in the user's source, beside torch's and ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

import torch

_LIBRARY = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parent.parent}{os.sep}")
_OUTERMOST = str(Path(__file__).with_name("borrow.py"))


def is_library(file: str) -> bool:
    """Whether a source file is torch's or ours rather than the user's."""
    return file.startswith((*_LIBRARY, "<"))


def caller_location() -> str | None:
    """``file:line`` of the innermost frame of the model's that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    # Beyond our own call of the model lies whoever called us, a script or the command line.
    while frame is not None and frame.f_code.co_filename != _OUTERMOST:
        if not is_library(frame.f_code.co_filename):
            return f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def shown_path(file: str) -> str:
    """Relative to the current directory when inside it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
