"""How this process gets its memory from the system; only a program, which owns it, may say."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""As in malloc.h."""

_kept = False


def keep_freed_memory() -> None:
    """Let this process keep what it frees, to use it again.

    glibc gives large blocks back to the system at once and then asks for them anew, every page to
    be cleared: a fifth of the time of a forward over large batches. Nothing changes under another
    C library, or where the user has set glibc's own variables.
    """
    global _kept  # noqa: PLW0603  as the setting itself, one for the process
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    _kept = bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    )


def is_freed_memory_kept() -> bool:
    """Whether large blocks cost no more than small ones."""
    return _kept
