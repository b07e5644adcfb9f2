"""The common face of all containers: groups of tensors, read on demand, and patched in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from varshift_cli.errors import CheckpointError, UsageError, WriteError
from varshift_cli.loading.containers import selection
from varshift_cli.loading.containers.pickles import Opaque
from varshift_cli.loading.containers.source import SourceFile
from varshift_cli.loading.containers.tensors import TensorRef
from varshift_cli.loading.containers.walking import state_of

_DEEPEST = 8
_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a record's bytes lie in the file, and where its CRC-32 is written."""

    offset: int
    size: int
    checksums: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PatchRecord:
    """What :meth:`Checkpoint.patch` wrote."""

    changed_bytes: int
    """Bytes that differ from the original, checksums included."""
    changed_tensors: int
    """Tensors given whose stored values differ from before."""
    sha256: str
    """Hex digest of the new file."""
    notes: tuple[str, ...] = ()


class LazyTensors(Mapping[str, torch.Tensor]):
    """Names to tensors; each look-up reads the file and returns a tensor of its own."""

    def __init__(self, checkpoint: Checkpoint, refs: Mapping[str, TensorRef]) -> None:
        """Promise these tensors; nothing is read yet."""
        self._checkpoint = checkpoint
        self.refs = refs

    def __getitem__(self, name: str) -> torch.Tensor:
        """Read one tensor, on CPU, in its stored dtype."""
        return self._checkpoint.read_tensor(name, self.refs[name])

    def __iter__(self) -> Iterator[str]:
        """Names in the file's order."""
        return iter(self.refs)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.refs)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape without reading it."""
        return self.refs[name].shape


@dataclass(frozen=True, slots=True)
class StateDict:
    """One group of named tensors of a checkpoint."""

    tensors: Mapping[str, torch.Tensor]
    """Names as stored, before any prefix is stripped."""
    key: str = ""
    """Dotted path inside the file; ``""`` for the file itself."""
    notes: tuple[str, ...] = ()
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    """What a Lightning checkpoint says that the model was built with, plain values only."""

    def dtype(self, name: str) -> torch.dtype | None:
        """In which a tensor is stored, without reading it; ``None`` for one that is not there."""
        if isinstance(self.tensors, LazyTensors):
            ref = self.tensors.refs.get(name)
            return None if ref is None else ref.dtype
        return self.tensors[name].dtype if name in self.tensors else None


class Checkpoint(ABC):
    """A file with tensors in it. Reading never imports or runs anything from the file.

    Attributes:
        path: As given.
        container: ``zip``, ``legacy``, ``safetensors``, ``torchscript``, ``exported``, ``module``.
    """

    container: str

    def __init__(self, source: SourceFile) -> None:
        """Keep the file; containers read their directory in their own ``__init__``."""
        self.source = source
        self.path = source.path
        self._last: tuple[str, bytearray] | None = None

    @property
    @abstractmethod
    def root(self) -> Any:
        """What the file holds, as inert values with :class:`TensorRef` for tensors."""

    @abstractmethod
    def record_size(self, record: str) -> int:
        """Bytes that a record holds.

        Raises:
            CheckpointError: If there is no such record.
        """

    @abstractmethod
    def read_record(self, record: str) -> bytearray:
        """A record's bytes, verified where the container has checksums."""

    @abstractmethod
    def spot(self, record: str) -> Spot:
        """Where a record lies, so that it can be patched.

        Raises:
            WriteError: If it is stored in a way that cannot be patched.
        """

    @property
    def sha256(self) -> str:
        """Hex digest of the file as it was opened."""
        return self.source.sha256

    def module(self, key: str | None = None) -> nn.Module:
        """The model itself, for containers that hold one; ``key`` as for :meth:`state_dict`.

        Raises:
            UsageError: For state dicts, which hold tensors only.
            CheckpointError: If it cannot be loaded.
        """
        del key  # containers that hold a model make use of it
        raise UsageError(
            f"{self.path} holds tensors only; the code of the model is needed to run it",
            hint="Name what builds it: --arch model.py:Net (a class, a function or a module).",
        )

    def state_dict(self, key: str | None = None) -> StateDict:
        """The tensors at a dotted key, or the likeliest group where ``key`` is ``None``.

        Raises:
            CheckpointError: If there is none.
        """
        candidate, notes = self._select(key)
        return StateDict(
            tensors=LazyTensors(self, candidate.tensors),
            key=candidate.key,
            notes=notes,
            hyper_parameters=_hyper_parameters(self.root),
        )

    def arrays(self) -> dict[str, torch.Tensor]:
        """All tensors of a file that is data rather than a model.

        A dict gives its own names; a tuple or list ``(x, y)`` and a single tensor the names
        ``x`` and ``y``.

        Raises:
            CheckpointError: If there are none, or one cannot be read.
        """
        root = self.root
        if isinstance(root, TensorRef):
            root = {"x": root}
        elif isinstance(root, list | tuple):
            root = dict(zip("xy", root, strict=False))
        found = selection.as_candidate((), root)
        if found is None:
            raise CheckpointError(
                f"{self.path} holds no arrays at its top level but {selection.describe(self.root)}",
                hint='Save a dict of tensors: torch.save({"x": x, "y": y}, path).',
            )
        return {name: self.read_tensor(name, ref) for name, ref in found.tensors.items()}

    def _select(self, key: str | None) -> tuple[selection.Candidate, tuple[str, ...]]:
        where = str(self.path)
        if key is None:
            return selection.choose(self.root, where)
        return selection.find(self.root, key, where), ()

    def read_tensor(self, name: str, ref: TensorRef) -> torch.Tensor:
        """One tensor, with memory of its own.

        Raises:
            CheckpointError: If the claim does not fit the record, or the record is damaged.
        """
        if ref.obstacle is not None or ref.numel == 0:
            ref.check(name, 0)
            return ref.view_of(bytearray())
        record = ref.storage.record
        ref.check(name, self.record_size(record))
        if self._last is None or self._last[0] != record:
            # One record is kept: some writers put all tensors into one storage.
            self._last = (record, self.read_record(record))
        return ref.view_of(self._last[1]).clone()

    def patch(
        self,
        output: Path,
        buffers: Mapping[str, torch.Tensor],
        *,
        key: str | None,
        overwrite: bool,
        in_place: bool = False,
        exact: bool = False,
        before_publishing: Callable[[str], None] | None = None,
    ) -> PatchRecord:
        """Write a copy of the file that differs in the named tensors only.

        Args:
            output: Another path than the checkpoint's own.
            buffers: Names as stored (keys of ``StateDict.tensors``) to new values.
            key: As for :meth:`state_dict`.
            overwrite: Whether a file at ``output`` may be replaced.
            in_place: Whether ``output`` is the checkpoint itself: the original stays beside it
                until what replaced it was read back.
            exact: Values are put back as they once were in such a file, NaN included.
            before_publishing: Told the new file's digest once it is written and verified, before
                it gets its name; if it raises, nothing was written.

        Raises:
            WriteError: If it cannot be done; then nothing was written.
        """
        # Imported here: patching re-opens files, and opening knows the containers.
        from varshift_cli.loading.containers.patching import write_patched  # noqa: PLC0415

        candidate, _ = self._select(key)
        unknown = [name for name in buffers if name not in candidate.tensors]
        if unknown:
            raise WriteError(f"{self.path} has no tensor {unknown[0]!r} to patch")
        return write_patched(
            self,
            candidate,
            buffers,
            Path(output),
            overwrite=overwrite,
            in_place=in_place,
            exact=exact,
            before_publishing=before_publishing,
        )


def _hyper_parameters(root: Any) -> dict[str, Any]:
    """Lightning's ``hyper_parameters``, where they are plain values."""
    if not isinstance(root, Mapping):
        return {}
    found = selection.dict_of(root.get("hyper_parameters"))
    if not found and isinstance(root.get("hyper_parameters"), Opaque):
        found = state_of(root["hyper_parameters"])
    return {
        name: value
        for name, value in found.items()
        if isinstance(name, str) and _is_plain(value, depth=0)
    }


def _is_plain(value: Any, *, depth: int) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return True
    if depth > _DEEPEST or not isinstance(value, list | tuple | dict) or len(value) > _LONGEST:
        return False
    items = value.values() if isinstance(value, dict) else value
    return all(_is_plain(item, depth=depth + 1) for item in items)
