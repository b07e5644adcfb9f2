"""``--memory``: how much the parked forwards of a lockstep pass may hold, and the windows it takes.

Statistics of all samples together are exact in one pass. Where their activations do not fit,
samples go through in windows, each normalised by its own statistics, whose moments are merged by
total variance: 6e-4 to 5e-3 off for windows of 500 to 100 of 1,000 samples.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from varshift_cli.errors import UsageError
from varshift_cli.records import Batch

MAX_LIVE = 2048
"""Forwards in lockstep at the same time, whatever memory there is: each has a thread."""
SHARE = 0.5
"""Of what is free, unless ``--memory`` says otherwise."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)


def memory_budget(text: str | None, device: torch.device | str = "cpu") -> int:
    """Bytes that parked forwards may hold.

    Args:
        text: ``2G``, ``512M``, or a share of what is free, ``0.5`` or ``50%``; half by default.
        device: Where they live.

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return int(SHARE * free_bytes(device))
    share = _share(text)
    if share is not None:
        return int(share * free_bytes(device))
    found = _SIZE.fullmatch(text.strip())
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2].upper()])
    if size < _UNITS["K"]:
        raise UsageError(
            f"--memory {text}: expected a size or a share of what is free",
            hint="For example --memory 2G, --memory 512M, or --memory 0.5 for half of it.",
        )
    return size


def granted(memory: int | None, device: torch.device | str = "cpu") -> int:
    """Bytes that parked forwards may hold, where nobody said: half of what is free."""
    return memory_budget(None, device) if memory is None else memory


def _share(text: str) -> float | None:
    """A number up to 1, or in percent; ``None`` for anything else."""
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().rstrip("%"))
    except ValueError:
        return None
    value = value / 100.0 if percent else value
    return value if 0.0 < value <= 1.0 else None


def free_bytes(device: torch.device | str = "cpu") -> int:
    """What can still be had: of the device, else of the machine and of the container it runs in."""
    place = torch.device(device)
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0])
    return min(_available(), _left_in_group())


def _available() -> int:
    """Memory that the system could give without swapping."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) << 10
    try:  # macOS tells how much there is, not how much is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 4 * _UNITS["G"]


def _left_in_group() -> int:
    """What a container's limit (cgroup v2) leaves; a great deal where there is none."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
        return 1 << 62 if limit == "max" else max(int(limit) - used, 0)
    except (OSError, ValueError):
        return 1 << 62


def plan_windows(
    batches: Sequence[Batch], per_sample: float, budget: int
) -> list[list[tuple[int, Batch]]]:
    """Numbered batches in as few windows as the budget allows, of about as many samples each.

    Args:
        batches: All of them.
        per_sample: Bytes that a parked forward holds for each of its samples.
        budget: Bytes that all together may hold; a window has at least one batch all the same.
    """
    numbered = list(enumerate(batches))
    samples = sum(batch.size for batch in batches)
    count = max(
        math.ceil(samples * per_sample / max(budget, 1)), math.ceil(len(batches) / MAX_LIVE), 1
    )
    while True:
        windows = _split(numbered, samples, min(count, len(batches)))
        fits = all(
            len(window) == 1 or per_sample * sum(batch.size for _, batch in window) <= budget
            for window in windows
        )
        if (fits and max(map(len, windows)) <= MAX_LIVE) or count >= len(batches):
            return windows
        count += 1


def _split(
    numbered: Sequence[tuple[int, Batch]], samples: int, count: int
) -> list[list[tuple[int, Batch]]]:
    windows: list[list[tuple[int, Batch]]] = [[] for _ in range(count)]
    seen = 0
    for index, batch in numbered:
        middle = seen + batch.size / 2
        windows[min(int(middle * count / samples), count - 1)].append((index, batch))
        seen += batch.size
    return [window for window in windows if window]
