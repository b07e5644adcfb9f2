"""Where a fix writes, settled before any work begins."""

from __future__ import annotations

import os
from pathlib import Path

from varshift_cli.errors import CheckpointNotFoundError, UsageError
from varshift_cli.loading import check_sidecar_place, sidecar_path, weights_file
from varshift_cli.nearby import file_hint
from varshift_cli.records import FixRequest, files_read


def output_path(request: FixRequest) -> Path:
    """Where to write; checked before the work begins.

    By default ``model.fixed.pt`` for ``model.pt``, or ``model.reverted.pt`` for a revert.

    Raises:
        CheckpointNotFoundError: There is no checkpoint.
        UsageError: The file exists, its folder does not, or cannot be written; or what would be
            written is what the run reads.
    """
    source = weights_file(request.scan.model)
    if not source.exists():  # else its folder would be told of as that of the output
        raise CheckpointNotFoundError(
            f"no such file: {source}", hint=file_hint(source, "Check the path of the checkpoint.")
        )
    output = _in_place(request, source) if request.in_place else _beside(request, source)
    if request.method != "revert":
        check_sidecar_place(output, overwrite=request.overwrite)
        _check_not_read(request, sidecar_path(output))
    return output


def written_files(request: FixRequest) -> dict[Path, str]:
    """Resolved path -> what it is: the checkpoint that a fix will write, and its sidecar.

    Raises:
        UsageError: As :func:`output_path`.
    """
    if request.dry_run:
        return {}
    output = output_path(request)
    written = {output.resolve(): "the checkpoint to be written"}
    if request.method != "revert":
        written[sidecar_path(output).resolve()] = "where the old buffers are kept"
    return written


def _beside(request: FixRequest, source: Path) -> Path:
    """The place of a new file."""
    suffix = "reverted" if request.method == "revert" else "fixed"
    name = f"{source.stem}.{suffix}{source.suffix}"
    output = Path(request.output) if request.output else source.with_name(name)
    if output.is_dir():
        output = output / name
    if not output.parent.is_dir():
        raise UsageError(f"the output folder {output.parent} does not exist")
    _check_writable(output.parent)
    if output.exists() and output.samefile(source):
        raise UsageError(
            f"{output} is the checkpoint itself",
            hint="Give another name with --output, or say --in-place.",
        )
    if os.path.lexists(output) and not output.is_file() and not output.is_symlink():
        raise UsageError(f"{output} is no regular file", hint="Name a file: --output.")
    _check_not_read(request, output)
    if os.path.lexists(output) and not request.overwrite:
        raise UsageError(
            f"{output} is already there", hint="Add --overwrite, or give --output another name."
        )
    return output


def _in_place(request: FixRequest, source: Path) -> Path:
    """The checkpoint's own place."""
    if request.output is not None:
        raise UsageError("--in-place and --output name two places to write to")
    if source.is_symlink():
        raise UsageError(
            f"{source} is a symbolic link, and --in-place replaces files",
            hint=f"Name the file itself: {source.resolve()}",
        )
    if source.is_dir():
        raise UsageError(f"{source} is a folder; name the weights file in it for --in-place")
    _check_writable(source.parent)
    return source


def _check_not_read(request: FixRequest, path: Path) -> None:
    """Refuse to write over what this very run reads."""
    reads = dict(files_read(request))
    if request.method == "revert":
        kept = sidecar_path(weights_file(request.scan.model))
        reads.setdefault(kept.resolve(), "the sidecar with the old buffers")
    called = reads.get(path.resolve())
    if called is not None:
        raise UsageError(
            f"{path} would be written, but is {called}", hint="Give --output another name."
        )


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"the folder {folder} cannot be written", hint="Name a file in another one: --output."
        )
