"""Opens a checkpoint by what it contains; the suffix says nothing."""

from __future__ import annotations

from pathlib import Path

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.checkpoint import Checkpoint
from varshift_cli.loading.containers.exported import ExportedProgramFile
from varshift_cli.loading.containers.folder import weights_file
from varshift_cli.loading.containers.legacy import LegacyFile, is_legacy
from varshift_cli.loading.containers.safetensors_file import Safetensors
from varshift_cli.loading.containers.scripted import ScriptArchive
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.torch_zip import TorchZip
from varshift_cli.loading.containers.zip_directory import ZipDirectory

_HEAD = 512
_TAR_AT = 257
_READS = "It reads what torch.save, torch.jit.save, torch.export.save and safetensors write."

_OTHER_KINDS = (
    (b"\x89HDF\r\n", "an HDF5 file (Keras, or h5py)", "Convert its weights to a state dict."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first."),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run: git lfs pull"),
    (b"<!DOCTYPE", "a web page", "The download fetched a page instead of the file."),
    (b"<html", "a web page", "The download fetched a page instead of the file."),
    (b"\x93NUMPY", "a numpy array", "Give calibration data with --data."),
    (b"\x08", "perhaps an ONNX model", "Give the PyTorch checkpoint that it was made from."),
)


def open_checkpoint(path: str | Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Open a checkpoint of any kind; reads its directory, not its tensors.

    Args:
        path: A file, or a Hugging Face folder with a single weights file.
        allow_pickle: Whether :meth:`Checkpoint.module` may unpickle a whole module, which runs
            whatever the file says.

    Raises:
        CheckpointNotFoundError: If there is no file.
        CheckpointError: If it is damaged, or of a kind that is not read.
    """
    source = SourceFile(weights_file(path))
    head = bytes(source.read(0, min(_HEAD, source.size)))
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _open_zip(source, allow_pickle=allow_pickle)
    if is_legacy(head):
        return LegacyFile(source, allow_pickle=allow_pickle)
    if head[8:9] == b"{" or source.path.suffix == ".safetensors":
        return Safetensors(source)
    raise _refusal(source, head)


def _refusal(source: SourceFile, head: bytes) -> CheckpointError:
    """Why a file that we do not read is not read, as far as its first bytes tell."""
    for magic, kind, hint in _OTHER_KINDS:
        if head.startswith(magic):
            return CheckpointError(f"{source.path} is no checkpoint: it is {kind}", hint=hint)
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return CheckpointError(
            f"{source.path} is a tar file, perhaps of torch 0.1",
            hint="Load it with the torch of its time and save its state_dict().",
        )
    if head[:1] == b"\x80":
        return CheckpointError(
            f"{source.path} is a pickle that torch.save did not write; it was not unpickled",
            hint="Load it where you trust it, and torch.save() the model's state_dict().",
        )
    return CheckpointError(
        f"{source.path} is no checkpoint that varshift reads; it begins with {head[:16]!r}",
        hint=_READS,
    )


def _open_zip(source: SourceFile, *, allow_pickle: bool) -> Checkpoint:
    directory = ZipDirectory(source)
    names = frozenset(directory.names)
    folders = sorted({name.partition("/")[0] + "/" for name in names if "/" in name} | {""})
    for folder in folders:
        if f"{folder}archive_format" in names or f"{folder}models/model.json" in names:
            return ExportedProgramFile(source, directory, folder, allow_pickle=allow_pickle)
    holders = [folder for folder in folders if f"{folder}data.pkl" in names]
    if len(holders) > 1:
        raise CheckpointError(
            f"{source.path} holds {len(holders)} checkpoints: {', '.join(holders[:5])}",
            hint="Save each in a file of its own.",
        )
    if not holders:
        raise _no_checkpoint(source, directory)
    folder = holders[0]
    if f"{folder}constants.pkl" in names:
        return ScriptArchive(source, directory, folder, allow_pickle=allow_pickle)
    return TorchZip(source, directory, folder, allow_pickle=allow_pickle)


def _no_checkpoint(source: SourceFile, directory: ZipDirectory) -> CheckpointError:
    names = directory.names
    if "serialized_exported_program.json" in names:
        return CheckpointError(
            f"{source.path} is an exported program of an older torch",
            hint="Load it with torch.export.load and save it with torch 2.8 or later.",
        )
    if names and all(name.endswith(".npy") for name in names):
        return CheckpointError(
            f"{source.path} is a numpy archive, not a checkpoint",
            hint="Give calibration data with --data.",
        )
    shown = ", ".join(names[:5])
    return CheckpointError(f"{source.path} is a zip file but no checkpoint: {shown}", hint=_READS)
