"""Scan every specimen, and tell what came first."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tests.zoo.plants import Specimen
from varshift_cli import FindingLevel, Report, scan

BATCH = 100


@dataclass(frozen=True)
class Row:
    """One specimen of one seed, scanned."""

    specimen: Specimen
    seed: int
    report: Report

    @property
    def first(self) -> str:
        """Code of the first finding; ``-`` without one."""
        return self.report.findings[0].code if self.report.findings else "-"

    @property
    def right(self) -> bool:
        """The planted cause came first; for a healthy net, nothing is above a note."""
        if self.specimen.code is None:
            return all(each.level is FindingLevel.NOTE for each in self.report.findings)
        return self.first == self.specimen.code


def examine(specimen: Specimen, seed: int) -> Row:
    """Make (or find) the net, and scan it on its data."""
    x, y = specimen.data()
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    return Row(specimen, seed, scan(net_of(specimen, seed), batches, **specimen.options))


def net_of(specimen: Specimen, seed: int) -> nn.Module:
    """The trained net, kept between runs until the zoo's code changes."""
    folder = Path(tempfile.gettempdir()) / f"varshift-zoo-{_version()}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{specimen.name.replace(' ', '_').replace(',', '')}-{seed}.pt"
    if path.exists():
        found: nn.Module = torch.load(path, weights_only=False)
        return found
    model = specimen.make(seed)
    torch.save(model, path)
    return model


def _version() -> str:
    here = Path(__file__).parent
    code = b"".join((here / f"{name}.py").read_bytes() for name in ("nets", "training", "plants"))
    return hashlib.sha256(code).hexdigest()[:12]


def confusion(rows: Sequence[Row]) -> str:
    """Planted against first, and the share that is right."""
    lines = [f"{'planted':10} {'net':28} {'first':>6}  then"]
    lines += [
        f"{row.specimen.code or 'healthy':10} {row.specimen.name[:28]:28} {row.first:>6}"
        f"{' ' if row.right else '*'} {_rest(row)}"
        for row in rows
    ]
    planted = [row for row in rows if row.specimen.code is not None]
    healthy = [row for row in rows if row.specimen.code is None]
    wrong = Counter((row.specimen.code, row.first) for row in planted if not row.right)
    lines += [
        "",
        f"planted cause first: {_share(planted)}",
        f"healthy, no alarm: {_share(healthy)}",
    ]
    lines += [f"  {code} taken for {first}: {count}" for (code, first), count in wrong.items()]
    return "\n".join(lines)


def _rest(row: Row) -> str:
    return " ".join(f"{each.code}({each.level[0]})" for each in row.report.findings)


def _share(rows: Iterable[Row]) -> str:
    listed = list(rows)
    right = sum(row.right for row in listed)
    return f"{right} of {len(listed)}" + (f" ({right / len(listed):.0%})" if listed else "")
