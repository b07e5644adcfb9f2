"""Which files a command reads, so that nothing is written over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from varshift_cli.records.requests import FixRequest, ScanRequest

_SETTINGS = ("varshift.toml", "pyproject.toml")


def files_read(request: ScanRequest | FixRequest) -> Mapping[Path, str]:
    """Resolved path -> what it is to the command: the checkpoint, the data, code, settings.

    A name that could stand for several files (``a.py:f``; in the current folder, or in that of the
    checkpoint) stands for all of them: too much is guarded rather than too little.
    """
    scan = request.scan if isinstance(request, FixRequest) else request
    found: dict[Path, str] = {Path(name).resolve(): "the settings file" for name in _SETTINGS}
    folders = (Path(), Path(scan.model).parent)
    for option, name in _named(request):
        for folder in folders:
            found[(folder / name).resolve()] = f"what {option} reads"
    found[Path(scan.model).resolve()] = "the checkpoint"
    return found


def _named(request: ScanRequest | FixRequest) -> Iterator[tuple[str, str]]:
    scan = request.scan if isinstance(request, FixRequest) else request
    specs = [
        ("--arch", scan.arch),
        ("--data", scan.data),
        ("--train-data", scan.train_data),
        ("--forward", scan.forward),
        ("--metric", scan.metric),
        *(("--noise", each) for each in scan.noise),
    ]
    if isinstance(request, FixRequest):
        specs.append(("--holdout", request.holdout))
    for option, spec in specs:
        if spec:
            yield option, spec
            yield option, spec.rpartition(":")[0] or spec
    for option, arguments in (("--arch-arg", scan.arch_args), ("--data-arg", scan.data_args)):
        for each in arguments:
            _, _, value = each.partition("=")
            if value.startswith("@"):
                yield option, value[1:]
