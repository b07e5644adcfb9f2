"""Calibration arrays from a file: ``.npz .npy .safetensors .pt``, never unpickled.

Inputs are named ``x``, ``inputs`` or ``images``, labels ``y``, ``labels`` or ``targets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from varshift_cli.errors import CheckpointError, DataError
from varshift_cli.loading.containers import open_checkpoint
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.zip_directory import ZipDirectory
from varshift_cli.loading.converting import as_tensor
from varshift_cli.loading.importing import nearest_hint
from varshift_cli.nearby import file_hint

_INPUTS = ("x", "inputs", "images", "X")
_LABELS = ("y", "labels", "targets", "label", "target")
_SHOWN = 8
_NPY = b"\x93NUMPY"
_READ_BY_US = frozenset({".safetensors", ".pt", ".pth", ".bin"})


@dataclass(frozen=True, slots=True)
class Arrays:
    """One input and its labels; the first dimension counts samples."""

    inputs: torch.Tensor
    labels: torch.Tensor | None
    input_name: str
    label_name: str | None


def is_array_file(spec: str) -> bool:
    """Whether the text names an array file rather than code."""
    return Path(spec).suffix.lower() in {".npz", ".npy", *_READ_BY_US}


def read_arrays(path: Path, input_name: str | None, label_name: str | None) -> Arrays:
    """The input and the labels in a file.

    Raises:
        DataError: If it cannot be read, or it is not clear which array is which.
    """
    if not path.is_file():
        raise DataError(f"there is no data file {path}", hint=file_hint(path))
    try:
        found = _read_npz(path) if path.suffix.lower() in {".npz", ".npy"} else _read_own(path)
    except CheckpointError as problem:
        raise DataError(f"data file {problem.message}", hint=problem.hint) from problem
    return pick_arrays(found, str(path), input_name, label_name)


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    _check_kind(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": _numeric(loaded, "its array", path)}
        with loaded:
            return {name: _numeric(loaded[name], repr(name), path) for name in loaded.files}
    except DataError:
        raise
    except MemoryError as problem:
        raise DataError(f"{path} claims arrays larger than memory") from problem
    except Exception as problem:
        # A damaged header or member: numpy, zipfile and tokenize raise every kind of error.
        text = " ".join(str(problem).split())
        if "allow_pickle" in text:
            raise DataError(
                f"{path} holds Python objects, which only unpickling could read; it was refused",
                hint="Save plain arrays of numbers: np.savez(path, x=x, y=y).",
            ) from problem
        raise DataError(
            f"{path} is damaged or no numpy file: {text[:200]}", hint="Save it again."
        ) from problem


def _check_kind(path: Path) -> None:
    """Refuse what numpy would take for a pickle, and zip bombs, before numpy looks at it.

    Raises:
        CheckpointError: If it is damaged, or claims to unpack to far more than it holds.
        DataError: If it is no numpy file.
    """
    source = SourceFile(path)
    head = bytes(source.read(0, min(len(_NPY), source.size)))
    if head.startswith(b"PK"):
        ZipDirectory(source)
    elif head != _NPY:
        raise DataError(
            f"{path} is no numpy file; it begins with {head!r}",
            hint="Save arrays with np.save(path, x) or np.savez(path, x=x, y=y).",
        )


def _numeric(array: Any, what: str, path: Path) -> torch.Tensor:
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {what} is no array", hint="Save it again with np.savez.")
    if array.dtype.kind not in "biufc":
        raise DataError(
            f"{path}: {what} holds {array.dtype}, not numbers", hint="Save arrays of numbers."
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        tensor: torch.Tensor = as_tensor(array)
    except TypeError as problem:
        raise DataError(f"{path}: {what} holds {array.dtype}, which torch has not") from problem
    return tensor


def _read_own(path: Path) -> dict[str, torch.Tensor]:
    """Tensors from a torch or safetensors file by the reader for checkpoints."""
    checkpoint = open_checkpoint(path)
    return checkpoint.arrays()


def pick_arrays(
    found: Mapping[str, torch.Tensor], where: str, input_name: str | None, label_name: str | None
) -> Arrays:
    """Which array is the input and which the labels, by the names asked for or the usual ones.

    Raises:
        DataError: If that is not clear, or their lengths differ.
    """
    if not found:
        raise DataError(f"{where} holds no arrays")
    label = _named(found, label_name, _LABELS, where, "--label")
    given = _named(found, input_name, _INPUTS, where, "--input")
    if given is None:
        others = [name for name in found if name != label]
        if len(others) != 1:
            raise DataError(
                f"{where}: which array is the input? It holds {_listed(found)}",
                hint="Name it with --input, and the labels with --label.",
            )
        given = others[0]
    inputs, labels = found[given], found[label] if label is not None else None
    if inputs.dim() == 0:
        raise DataError(f"{where}: {given!r} is a single number")
    if labels is not None and (labels.dim() == 0 or len(labels) != len(inputs)):
        count = len(labels) if labels.dim() else 1
        raise DataError(
            f"{where}: {given!r} holds {len(inputs):,} samples, {label!r} {count:,} labels"
        )
    return Arrays(inputs, labels, given, label)


def _named(
    found: Mapping[str, Any], asked: str | None, usual: tuple[str, ...], where: str, option: str
) -> str | None:
    if asked is None:
        return next((name for name in usual if name in found), None)
    if asked not in found:
        raise DataError(
            f"{where} holds no {asked!r} ({option}); it holds {_listed(found)}",
            hint=nearest_hint(asked, list(found)),
        )
    return asked


def _listed(found: Mapping[str, torch.Tensor]) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in found.items()]
    return ", ".join(shown[:_SHOWN]) + (
        f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    )
