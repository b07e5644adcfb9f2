"""Open what a request names: checkpoint, model, data, device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from varshift_cli.errors import UsageError
from varshift_cli.instrument import BatchNormCatalogue, find_batch_norms
from varshift_cli.instrument.borrow import Forward, on_whole_batches
from varshift_cli.instrument.noise_modules import matches
from varshift_cli.loading import (
    BuiltModel,
    Checkpoint,
    LoadedData,
    StateDict,
    build_model,
    import_files_anew,
    likely_input,
    load_data,
    load_forward,
    load_metric,
    load_noise,
    open_checkpoint,
    open_model,
)
from varshift_cli.loading.arrays import is_array_file
from varshift_cli.measurement.memory import memory_budget
from varshift_cli.records import CheckpointRecord, Progress, ScanRequest


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Everything a scan or fix works on."""

    checkpoint: Checkpoint
    state: StateDict
    built: BuiltModel
    data: LoadedData
    device: torch.device
    forward: Forward | None
    noise: tuple[type, ...] = ()
    """Module types that the user calls noise."""
    metric: Callable[..., Any] | None = None
    memory: int | None = None
    """Bytes that parked forwards may hold. Read once: what a pass frees, the process may keep."""

    def find_batch_norms(self) -> BatchNormCatalogue:
        """The model's BN, and its noise."""
        return find_batch_norms(self.model, self.noise)

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self.built.model

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading wants the user to know."""
        return (*self.state.notes, *self.built.notes, *self.data.notes)

    def held_dtypes(self) -> dict[str, torch.dtype]:
        """The coarser of the dtypes in which file and model hold a BN's variance, by BN name."""
        found = {}
        for path, buffer in self.model.named_buffers():
            owner, _, leaf = path.rpartition(".")
            if leaf == "running_var":
                stored = self.state.dtype(self.built.names.get(path, ""))
                coarser = stored is not None and stored.itemsize < buffer.dtype.itemsize
                found[owner] = stored if stored is not None and coarser else buffer.dtype
        return found

    def record(self) -> CheckpointRecord:
        """As reported."""
        return CheckpointRecord(
            path=str(self.checkpoint.path),
            sha256=self.checkpoint.sha256,
            container=self.checkpoint.container,
            key=self.state.key,
            arch=self.built.call,
        )


def open_inputs(request: ScanRequest, other_data: str | None = None) -> Inputs:
    """Open all that the request names, cheapest first, so that mistakes show at once.

    Args:
        request: Of a scan.
        other_data: Further data that ``--data-arg`` may be for: ``--train-data``, ``--holdout``.

    Raises:
        VarshiftError: Whatever is wrong with the user's files or options.
    """
    import_files_anew()
    checkpoint = open_checkpoint(request.model, allow_pickle=request.allow_pickle)
    device = choose_device(request.device)
    memory = memory_budget(request.memory, device)
    if request.data is None:
        raise _no_data(request, checkpoint)
    search = [Path.cwd(), checkpoint.path.parent]
    state = checkpoint.state_dict(request.key)
    built = _build(request, checkpoint, state, search)
    forward = None
    if request.forward is not None:
        forward = on_whole_batches(load_forward(request.forward, search))
    metric = None if request.metric is None else load_metric(request.metric, search)
    shared = other_data is not None and not is_array_file(other_data)
    data = _load(request, request.data, built, search, option="--data", shared=shared)
    noise = load_noise(request.noise, search)
    refuse_unknown_noise(built.model, noise)
    built.model.to(device)
    return Inputs(checkpoint, state, built, data, device, forward, noise, metric, memory)


_WITH_MODEL = ("torchscript", "exported", "module")
"""Containers that hold the model itself, so that no --arch is needed."""


def _no_data(request: ScanRequest, checkpoint: Checkpoint) -> UsageError:
    """What is missing; --arch as well where it is, so that not each takes a run to learn of."""
    advice = (
        "Give --data calib.npz, or --data file.py:function returning a loader; or put "
        'data = "..." into ./varshift.toml.'
    )
    clue = likely_input(checkpoint.state_dict(request.key))
    hint = advice if clue is None else f"{advice}\n{clue}"
    if request.arch is not None or checkpoint.container in _WITH_MODEL:
        return UsageError("no calibration data: --data is missing", hint=hint)
    return UsageError(
        f"--arch and --data are missing: {checkpoint.path} holds tensors only, so that the code "
        "of the model is needed, and samples to run through it",
        hint=f"Give --arch model.py:Net, a class or function that builds the model.\n{hint}",
    )


def _build(
    request: ScanRequest, checkpoint: Checkpoint, state: StateDict, search: list[Path]
) -> BuiltModel:
    """The model that ``--arch`` makes; without it, the one that the file itself holds."""
    if request.arch is not None:
        return build_model(request.arch, request.arch_args, state, search_dirs=search)
    if request.arch_args:
        raise UsageError(
            "--arch-arg is given, but no --arch for it to be an argument of",
            hint="Name what builds the network: --arch model.py:Net",
        )
    return open_model(checkpoint, request.key)


def load_other_data(
    request: ScanRequest, spec: str, inputs: Inputs, option: str, progress: Progress
) -> LoadedData:
    """Load further data by the options of ``--data``; what is peculiar to them is remarked on."""
    search = [Path.cwd(), inputs.checkpoint.path.parent]
    data = _load(request, spec, inputs.built, search, option=option, shared=True)
    for note in data.notes:
        if note not in inputs.data.notes:
            progress.remark(f"{option}: {note}")
    return data


def _load(
    request: ScanRequest,
    spec: str,
    built: BuiltModel,
    search: list[Path],
    *,
    option: str,
    shared: bool,
) -> LoadedData:
    """Load data; shared options may be for other data, and need mean nothing for these."""
    return load_data(
        spec,
        data_args=request.data_args,
        input=request.input,
        label=request.label,
        samples=request.samples,
        batch_size=request.batch_size,
        seed=request.seed,
        model=built.model,
        search_dirs=search,
        as_given=request.forward is not None,
        fixed_batch=built.fixed_batch,
        option=option,
        shared=shared,
    )


def refuse_unknown_noise(model: nn.Module, noise: Sequence[type]) -> None:
    """A type that the model has no layer of is a slip.

    Raises:
        UsageError: Names the type, and the types of layers that there are.
    """
    for each in noise:
        if not any(matches(module, each) for module in model.modules()):
            known = sorted({type(module).__name__ for module in model.modules()})
            raise UsageError(
                f"--noise {each.__name__}: the model has no layer of this type",
                hint=f"Its layers are of type {', '.join(known)}.",
            )


def choose_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one, else cpu; never mps, which has no float64.

    Raises:
        UsageError: The device is unknown or absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: no such kind of device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {name}: this torch ({torch.__version__}) finds no CUDA device",
            hint="Use --device cpu, or install a CUDA build of torch.",
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(
            f"--device {name}: varshift needs float64 and runs on cpu or cuda only",
        )
    return device
