"""Write what was repaired in memory into a file, its old buffers beside it; or put them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from varshift_cli import __version__
from varshift_cli.errors import WriteError
from varshift_cli.loading import (
    PatchRecord,
    Provenance,
    Sidecar,
    own_sidecar,
    revert,
    sidecar_path,
    sidecar_restored_on_error,
    write_sidecar,
)
from varshift_cli.pipeline.inputs import Inputs
from varshift_cli.pipeline.places import output_path
from varshift_cli.pipeline.repair import Repair
from varshift_cli.records import CheckpointRecord, FixRecord, FixRequest

KINDS = {"recalibrate": "recalibrated", "correct": "corrected"}


@dataclass(frozen=True, slots=True)
class Written:
    """What lies on disk now."""

    output: Path
    sidecar: Path
    patch: PatchRecord


def earlier_repair(inputs: Inputs) -> Sidecar | None:
    """The sidecar of the checkpoint, if it is an output of ours as it was written."""
    return own_sidecar(inputs.checkpoint.path, inputs.checkpoint.sha256)


def write_repaired(
    inputs: Inputs, repair: Repair, output: Path, request: FixRequest, *, method: str
) -> Written:
    """Patch a copy, keep the old buffers in the sidecar, and only then give the copy its name.

    Raises:
        WriteError: It cannot be done; nothing was written.
    """
    buffers = _buffers(inputs, repair)
    sidecar = sidecar_path(output)
    with sidecar_restored_on_error(sidecar, output):
        patch = inputs.checkpoint.patch(
            output,
            buffers,
            key=inputs.state.key,
            overwrite=request.overwrite,
            in_place=request.in_place,
            before_publishing=_keeping(inputs, buffers, sidecar, output, method, request),
        )
    return Written(output, sidecar, patch)


def _buffers(inputs: Inputs, repair: Repair) -> dict[str, Tensor]:
    """The running buffers by stored name, as they were verified in the model."""
    held = dict(inputs.model.named_buffers())
    buffers: dict[str, Tensor] = {}
    for pair in repair.buffers.values():
        for path in pair or ():
            buffers[inputs.built.names[path]] = held[path].detach().cpu()
    return buffers


def _keeping(
    inputs: Inputs,
    buffers: Mapping[str, Tensor],
    sidecar: Path,
    output: Path,
    method: str,
    request: FixRequest,
) -> Callable[[str], None]:
    old = {name: inputs.state.tensors[name] for name in buffers}

    def keep(sha256: str) -> None:
        provenance = Provenance(
            output=output.name,
            output_sha256=sha256,
            source=inputs.checkpoint.path.name,
            source_sha256=inputs.checkpoint.sha256,
            key=inputs.state.key,
            method=method,
            data=inputs.data.description,
            seed=str(request.scan.seed),
            varshift_version=__version__,
            torch_version=str(torch.__version__),
        )
        write_sidecar(sidecar, provenance, old)

    return keep


def revert_checkpoint(request: FixRequest) -> FixRecord:
    """``--revert``: the file as it was before its repair, by the buffers in its sidecar.

    Raises:
        CheckpointError: There is no sidecar, or it is that of another file.
        WriteError: It could not be written.
    """
    output = None if request.dry_run else output_path(request)
    done = revert(
        Path(request.scan.model), output, overwrite=request.overwrite, in_place=request.in_place
    )
    provenance, patch = done.provenance, done.patch
    if patch is not None and patch.sha256 != provenance.source_sha256:
        raise WriteError(f"{output} is not the old file")  # the check before publishing failed
    repaired = KINDS.get(provenance.method, provenance.method)
    return FixRecord(
        checkpoint=CheckpointRecord(
            path=str(done.checkpoint.path),
            sha256=done.checkpoint.sha256,
            container=done.checkpoint.container,
            key=provenance.key,
        ),
        output=None if output is None else str(output),
        sidecar=str(done.sidecar),
        output_sha256=None if patch is None else patch.sha256,
        changed_buffers=0 if patch is None else patch.changed_tensors,
        changed_bytes=0 if patch is None else patch.changed_bytes,
        repair=None,
        worst_before=None,
        worst_layer_before="",
        worst_after=None,
        above_before=0,
        above_after=0,
        measured=0,
        scores=(),
        status="dry_run" if patch is None else "reverted",
        method="revert",
        reason=f"{repaired} from {provenance.source} on {provenance.data}",
    )
