"""Opens a checkpoint by what it contains; the suffix says nothing."""

from __future__ import annotations

from pathlib import Path

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.checkpoint import Checkpoint
from varshift_cli.loading.containers.safetensors_file import Safetensors
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.torch_zip import TorchZip
from varshift_cli.loading.containers.zip_directory import ZipDirectory


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
    source = SourceFile(Path(path))
    head = bytes(source.read(0, min(64, source.size)))
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _open_zip(source, allow_pickle=allow_pickle)
    if head[8:9] == b"{" or source.path.suffix == ".safetensors":
        return Safetensors(source)
    raise CheckpointError(
        f"{path} is not a checkpoint that varshift reads; it begins with {head[:16]!r}",
        hint="It reads what torch.save, torch.jit.save, torch.export.save and safetensors write.",
    )


def _open_zip(source: SourceFile, *, allow_pickle: bool) -> Checkpoint:
    directory = ZipDirectory(source)
    folders = [name[:-8] for name in directory.names if name.endswith("data.pkl")]
    folders = [folder for folder in folders if folder.count("/") <= 1]
    if len(folders) != 1:
        raise CheckpointError(
            f"{source.path} is a zip file but no checkpoint: {len(folders)} data.pkl inside"
        )
    return TorchZip(source, directory, folders[0])
