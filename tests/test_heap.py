"""The program keeps the memory it frees; a process that asked for nothing is left alone."""

import os
import platform
import subprocess
import sys

import pytest

CHILD = """
import resource, sys
from varshift_cli.heap import is_freed_memory_kept, keep_freed_memory
import torch
if "keep" in sys.argv:
    keep_freed_memory()
for _ in range(20):  # until it has found its place
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(is_freed_memory_kept(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * (1 << 26) // 4096
"""Of ten tensors of 64 MiB."""

LIBRARY, VERSION = platform.libc_ver()
pytestmark = pytest.mark.skipif(LIBRARY != "glibc", reason="the C library is not glibc")


def faults(*arguments: str, **variables: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and pages cleared for ten tensors that are dropped at once."""
    apart = ("MALLOC_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")
    plain = {key: value for key, value in os.environ.items() if not key.startswith(apart)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env=plain | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(
    [int(part) for part in VERSION.split(".") if part] < [2, 35],
    reason="glibc before 2.35 gives blocks of 64 MiB back all the same",
)
def test_freed_memory_is_used_again() -> None:
    kept, cleared = faults("keep")
    assert kept
    assert cleared < PAGES / 100


def test_nothing_changes_unless_asked() -> None:
    kept, cleared = faults()
    assert not kept
    assert cleared >= PAGES * 0.9


def test_the_user_s_own_variables_hold() -> None:
    assert not faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0]
