"""How this process gets its memory from the system; only a program, which owns it, may say."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""As in malloc.h."""

_LARGEST = 128 << 20
"""Bytes from which a block goes back all the same: kept, such would leave holes as large."""
_THE_USERS = ("MALLOC_MMAP_", "MALLOC_TRIM_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")

_kept = False


def keep_freed_memory() -> None:
    """Let this process keep what it frees, to use it again.

    glibc gives large blocks back to the system at once and then asks for them anew, every page to
    be cleared: a fifth of the time of a forward over large batches. Nothing changes under another
    C library, or where the user has set glibc's own variables.
    """
    global _kept  # noqa: PLW0603  as the setting itself, one for the process
    if any(name.startswith(_THE_USERS) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    _kept = bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST))
    if not _kept:  # before 2.35 it takes no more: larger blocks are given back all the same
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def is_freed_memory_kept() -> bool:
    """Whether it is, in blocks of up to 128 MiB."""
    return _kept
