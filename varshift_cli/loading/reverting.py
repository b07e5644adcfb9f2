"""Undo a repair: put the old buffers back, and prove that the file is the old one to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from varshift_cli.errors import CheckpointError, WriteError
from varshift_cli.loading.containers import Checkpoint, PatchRecord, open_checkpoint
from varshift_cli.loading.sidecar import Provenance, read_sidecar, sidecar_path


@dataclass(frozen=True, slots=True, eq=False)
class Reverted:
    """What was put back."""

    checkpoint: Checkpoint
    provenance: Provenance
    sidecar: Path
    patch: PatchRecord | None
    """``None`` for a dry run."""


def revert(path: Path, output: Path | None, *, overwrite: bool, in_place: bool) -> Reverted:
    """Write the checkpoint as it was before its repair.

    Args:
        path: The repaired file; its sidecar lies beside it.
        output: Where to; the file itself if ``in_place``; ``None`` to check only.
        overwrite: Whether a file at ``output`` may be replaced.
        in_place: Replace the repaired file. Its sidecar, then without use, goes as well.

    Raises:
        CheckpointError: No sidecar, a damaged one, or that of another file.
        WriteError: It could not be written, or would not be the old file.
    """
    checkpoint = open_checkpoint(path)
    place = sidecar_path(checkpoint.path)
    sidecar = read_sidecar(place)
    provenance = sidecar.provenance
    if provenance.output_sha256 != checkpoint.sha256:
        raise CheckpointError(
            f"{place} belongs to another file: it was written for {provenance.output} with sha256 "
            f"{provenance.output_sha256[:12]}..., this one has {checkpoint.sha256[:12]}...",
            hint="The file was changed or replaced after its repair; nothing was put back.",
        )
    patch = None
    if output is not None:
        patch = checkpoint.patch(
            output,
            sidecar.buffers,
            key=provenance.key,
            overwrite=overwrite,
            in_place=in_place,
            exact=True,
            before_publishing=_only(provenance.source_sha256),
        )
        if in_place:
            place.unlink(missing_ok=True)
    return Reverted(checkpoint, provenance, place, patch)


def _only(expected: str) -> Callable[[str], None]:
    """Lets a file through that has this digest."""

    def check(sha256: str) -> None:
        if sha256 != expected:
            raise WriteError(
                "with the old buffers put back the file is not the old one: it has sha256 "
                f"{sha256[:12]}..., the original had {expected[:12]}...; nothing was written"
            )

    return check
