"""Finds and imports what ``--arch``, ``--data``, ``--metric`` and ``--forward`` name.

This is the only place where a user's code is imported. It runs with the given folders importable,
prints to stderr instead of the report, draws from random generators of its own, and its errors are
told in a line with the place in the user's file.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import random
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from varshift_cli.errors import UsageError, VarshiftError
from varshift_cli.interrupts import tidied
from varshift_cli.nearby import file_hint

_SHOWN = 8
_OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Target:
    """``file.py:name`` or ``package.module:name``, split at the last colon."""

    place: str
    name: str
    option: str
    """The option it was given with, for messages."""

    @classmethod
    def parse(cls, spec: str, option: str) -> Target:
        r"""Split at the last colon, so that ``C:\models\net.py:Net`` works.

        Raises:
            UsageError: If there is no colon, or nothing on one side of it.
        """
        place, colon, name = spec.rpartition(":")
        dotted = all(part.isidentifier() for part in name.split("."))
        if not colon or not place or not dotted:
            raise UsageError(
                f"{option} {spec!r} names no function or class",
                hint=f"Write {option} file.py:name or {option} package.module:name.",
            )
        return cls(place, name, option)

    @property
    def is_file(self) -> bool:
        """Whether the place is a file rather than a module."""
        return self.place.endswith(".py") or "/" in self.place or "\\" in self.place

    @property
    def label(self) -> str:
        """How the target is shown: ``model.py:build``."""
        return f"{self.place}:{self.name}"


def import_target(target: Target, search_dirs: Sequence[Path], error: type[VarshiftError]) -> Any:
    """The object that a target names.

    Args:
        target: What to import.
        search_dirs: Importable folders: the first goes before installed packages, so that a
            local ``models`` package is found; the others after, so that a file beside a
            downloaded checkpoint cannot stand in for an installed package.
        error: The class to raise.

    Raises:
        VarshiftError: Of the class ``error``, if the module cannot be imported or has no such
            name.
    """
    with users_code(target.label, error, search_dirs, doing="could not be imported"):
        module = _import_module(target, search_dirs, error)
        found: Any = module
        for part in target.name.split("."):
            if not hasattr(found, part):
                raise error(
                    f"{target.place} has no {target.name!r}",
                    hint=nearest_hint(part, _that_could_be_meant(found)),
                )
            found = getattr(found, part)
        return found


def _that_could_be_meant(owner: Any) -> list[str]:
    """Public names of a module or class: what it defines itself, or all, if that is nothing.

    A file's imports, such as ``nn``, are names in it as well.
    """
    public = {name: getattr(owner, name, None) for name in dir(owner) if not name.startswith("_")}
    if not isinstance(owner, ModuleType):
        return list(public)
    own = [
        name
        for name, value in public.items()
        if isinstance(value, nn.Module | Dataset | DataLoader)
        or (isinstance(value, type | FunctionType) and value.__module__ == owner.__name__)
    ]
    return own or [name for name, value in public.items() if not isinstance(value, ModuleType)]


def nearest_hint(name: str, known: Sequence[str]) -> str | None:
    """``Did you mean ...`` with up to three names, or what is there."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if not known:
        return None
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"There are: {', '.join(known[:_SHOWN])}{more}."


def _import_module(
    target: Target, search_dirs: Sequence[Path], error: type[VarshiftError]
) -> ModuleType:
    if not target.is_file:
        try:
            return importlib.import_module(target.place)
        except ModuleNotFoundError as problem:
            if problem.name is None or not f"{target.place}.".startswith(f"{problem.name}."):
                raise
            raise error(
                f"{target.option} {target.label}: there is no module {problem.name!r}",
                hint="Looked in "
                + ", ".join(str(folder) for folder in search_dirs)
                + " and the installed packages. For a file write file.py:name.",
            ) from problem
    path = _find_file(target, search_dirs, error)
    # A name of its own per file, kept in sys.modules: dataclasses and pickle look it up there.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"varshift_user_{path.stem}_{digest}"
    if name in _IMPORTED:
        return _IMPORTED[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{target.option} {target.label}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _IMPORTED[name] = module
    return module


_IMPORTED: dict[str, ModuleType] = {}
"""Files that this command has imported: two options that name one file mean one class by one
name."""


def import_files_anew() -> None:
    """Let a new command import files again, which may have changed, or hold what is used up."""
    _IMPORTED.clear()


def _find_file(target: Target, search_dirs: Sequence[Path], error: type[VarshiftError]) -> Path:
    for folder in (Path(), *search_dirs):
        path = folder / target.place
        if path.is_file():
            return path.resolve()
    looked = "Looked in " + ", ".join(str(folder) for folder in search_dirs or [Path.cwd()]) + "."
    raise error(
        f"{target.option} {target.label}: there is no file {target.place}",
        hint=file_hint(target.place, looked),
    )


@contextlib.contextmanager
def users_code(
    label: str,
    error: type[VarshiftError],
    search_dirs: Sequence[Path] = (),
    *,
    doing: str = "raised",
    seed: int = 0,
) -> Iterator[None]:
    """Surroundings in which code of the user's runs.

    ``sys.path``, ``sys.stdout`` and all global random generators are as before afterwards; the
    generators are seeded inside, so that what is drawn is drawn again next time.

    Raises:
        VarshiftError: Of the class ``error``, for whatever the code raises (Ctrl-C excepted).
    """
    path_before, stdout_before = list(sys.path), sys.stdout
    folders = [str(folder.resolve()) for folder in search_dirs]

    def restore() -> None:
        sys.path[:] = path_before
        sys.stdout = stdout_before

    with tidied(restore):
        sys.path[:] = [*folders[:1], *path_before, *folders[1:]]
        sys.stdout = sys.stderr
        try:
            with own_randomness(seed):
                yield
        except VarshiftError:
            raise
        except (Exception, SystemExit) as problem:
            raise error(f"{label} {doing}: {told(problem)}") from problem


@contextlib.contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed torch, numpy and ``random`` inside, and leave all of them as found."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    cpu_state = torch.get_rng_state()

    def restore() -> None:
        torch.set_rng_state(cpu_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002

    with tidied(restore), torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - it is the global one that users draw from
        random.seed(seed)
        yield


def told(problem: BaseException) -> str:
    """An exception in one line, with the place in the user's code where it was raised."""
    text = " ".join(str(problem).split())
    said = f"{type(problem).__name__}: {text[:500]}" if text else type(problem).__name__
    place = _place(problem)
    return f"{said} ({place})" if place else said


def _place(problem: BaseException) -> str | None:
    """``file:line`` of the innermost frame in the user's own files."""
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{problem.filename}:{problem.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(problem.__traceback__)
        if not frame.filename.startswith(("<", str(_OURS), str(Path(contextlib.__file__))))
    ]
    own = [frame for frame in frames if not _is_library(frame.filename)]
    if not own:
        return None
    return f"{own[-1].filename}:{own[-1].lineno}"


def _is_library(filename: str) -> bool:
    return (
        "site-packages" in filename
        or "dist-packages" in filename
        or filename.startswith(str(Path(contextlib.__file__).parent))
    )
