"""A folder as Hugging Face and timm publish models: its single weights file."""

from __future__ import annotations

from pathlib import Path

from varshift_cli.errors import CheckpointError

_USUAL = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pt2"})
_NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "tokenizer")
_SHOWN = 5


def weights_file(path: str | Path) -> Path:
    """The file itself, or the one with the weights where a folder is named.

    Raises:
        CheckpointError: If a folder holds no weights file, or several.
    """
    place = Path(path)
    return find_weights(place) if place.is_dir() else place


def find_weights(folder: Path) -> Path:
    """The one file with weights in a folder.

    Raises:
        CheckpointError: If there is none, or several.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as problem:
        raise CheckpointError(f"{folder} cannot be read: {problem.strerror}") from problem
    if any(name.endswith((".index.json", ".distcp")) for name in names):
        raise CheckpointError(
            f"{folder} holds weights in several shards",
            hint="Load the model and save it in one file: "
            'model.save_pretrained(folder, max_shard_size="100GB").',
        )
    weights = [
        name
        for name in names
        if Path(name).suffix in _SUFFIXES and not name.startswith((*_NOT_WEIGHTS, "."))
    ]
    usual = [name for name in _USUAL if name in weights]
    if len(usual) == 1 or (not usual and len(weights) == 1):
        return folder / (usual or weights)[0]
    if not weights:
        raise CheckpointError(
            f"{folder} is a folder without a weights file", hint="Name the checkpoint file itself."
        )
    shown = ", ".join((usual or weights)[:_SHOWN])
    raise CheckpointError(
        f"{folder} holds several weights files: {shown}",
        hint="Name the one you mean: varshift scan FOLDER/FILE",
    )
