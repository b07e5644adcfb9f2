"""Turns whatever a loader yields into :class:`~varshift_cli.records.Batch`.

A tensor is the input. A tuple or list is input, then label. A dict is spread over the parameters
of ``forward`` by name. numpy arrays become tensors; nothing is copied, cast or moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from varshift_cli.errors import DataError
from varshift_cli.loading.converting import as_label, as_tensor, is_array
from varshift_cli.loading.forward import ForwardSignature, forward_signature, is_label
from varshift_cli.loading.whole import inputs_of, whole_batch
from varshift_cli.records import Batch

MIN_SAMPLES = 2
_INPUT_NAMES = ("x", "inputs", "images", "input", "image", "data")


def adapt_batches(
    raw: Iterable[Any],
    model: object,
    *,
    what: str,
    as_given: bool = False,
    samples: int | None = None,
) -> tuple[tuple[Batch, ...], tuple[str, ...]]:
    """Every batch that ``raw`` yields, checked: tensors, tuples, dicts or ready batches.

    Args:
        raw: A loader, a list of batches, or any iterable of them; a single tensor is one batch.
        model: Its ``forward`` tells how a dict is spread.
        what: How the data are called in messages.
        as_given: Whether a function of the user's calls the model: it gets each batch whole, as
            ``args[0]``.
        samples: No more than this many are drawn; all by default.

    Returns:
        The batches, and what should be said about them.

    Raises:
        DataError: For a batch that cannot be understood, or that holds NaN or infinity.
    """
    if isinstance(raw, torch.Tensor | np.ndarray | Batch):
        raw = [raw]
    adapter = BatchAdapter.of(model, what, as_given=as_given)
    sizes: list[int] = []
    stream = _counted(adapter.stream(raw), sizes)
    batches = tuple(stream if samples is None else limited(stream, samples))
    taken = sum(batch.size for batch in batches)
    check_enough(taken, what)
    if taken == samples and (taken < sum(sizes) or len(batches) < _length(raw)):
        adapter.notes.append(f"the first {taken:,} samples were taken; there are more (samples=)")
    return batches, tuple(adapter.notes)


def _counted(batches: Iterable[Batch], sizes: list[int]) -> Iterator[Batch]:
    for batch in batches:
        sizes.append(batch.size)
        yield batch


def _length(raw: Iterable[Any]) -> int:
    """How many batches there are; 0 where nobody can tell, as of a stream."""
    try:
        return len(raw)  # type: ignore[arg-type]
    except TypeError:
        return 0


def limited(batches: Iterable[Batch], samples: int) -> Iterator[Batch]:
    """Batches as they come until there are enough samples; the last one is cut to fit."""
    left = samples
    for batch in batches:
        yield batch if batch.size <= left else _cut(batch, left)
        left -= batch.size
        if left <= 0:
            return


def _cut(batch: Batch, size: int) -> Batch:
    """The first samples of a batch; tensors of another length are not per sample and stay."""

    def cut(item: Any) -> Any:
        whole = isinstance(item, torch.Tensor) and item.dim() > 0 and item.shape[0] == batch.size
        return item[:size] if whole else item

    args, kwargs, labels = tree_map(cut, (batch.args, dict(batch.kwargs), batch.labels))
    return Batch(args, kwargs, labels, size)


def common_size(batches: Sequence[Batch]) -> int | None:
    """The size that all batches share, a smaller last one aside."""
    sizes = [batch.size for batch in batches]
    same = len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]
    return sizes[0] if same else None


def check_enough(samples: int, what: str) -> None:
    """Refuse too little data.

    Raises:
        DataError: For fewer than two samples: no variance can be told from them.
    """
    if samples == 0:
        raise DataError(
            f"{what} is empty: it holds 0 samples",
            hint="At least 2 samples are needed; 1,000 are good.",
        )
    if samples < MIN_SAMPLES:
        raise DataError(
            f"{what} holds one sample; a variance needs at least 2",
            hint="1,000 samples are good, 128 often do.",
        )


@dataclass
class BatchAdapter:
    """Adapts batches one after another and remembers what should be said about them."""

    signature: ForwardSignature
    what: str
    as_given: bool = False
    """Whether batches go on whole, as the only argument, to a function of the user's."""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: object, what: str, *, as_given: bool) -> BatchAdapter:
        """For a model, which a function of the user's may call."""
        return cls(forward_signature(model), what, as_given)

    def stream(self, raw: Iterable[Any]) -> Iterator[Batch]:
        """Batches as they come, each checked for NaN and infinity."""
        first_sample = 0
        for index, item in enumerate(raw):
            batch = self.adapt(item, f"batch {index} of {self.what}")
            seen = batch if not self.as_given else replace(batch, args=tuple(inputs_of(batch)))
            check_finite_inputs(seen, f"batch {index} of {self.what}", first_sample)
            first_sample += batch.size
            yield batch

    def adapt(self, item: Any, where: str) -> Batch:
        """One batch.

        Raises:
            DataError: If it is of no form that is understood.
        """
        if isinstance(item, Batch):
            return item
        if self.as_given:
            return whole_batch(item, where, len(self.signature.required), self._note)
        args, kwargs, labels = self._spread(item, where)
        return _sized(args, kwargs, labels, where)

    def _spread(self, item: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        if is_array(item):
            return (as_tensor(item),), {}, None
        if isinstance(item, Mapping):
            return self._spread_mapping(item, where)
        if isinstance(item, tuple | list) and item:
            return self._spread_sequence(list(item), where)
        raise DataError(
            f"{where} is a {type(item).__name__}",
            hint="Expected a tensor, a tuple (input, label), or a dict of tensors.",
        )

    def _spread_sequence(
        self, items: list[Any], where: str
    ) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        first, rest = items[0], items[1:]
        needed = len(self.signature.required)
        if needed > 1 and is_array(first) and needed <= len(items) and all(map(is_array, items)):
            # One input could never run: forward requires several.
            self._note(f"{self.signature} takes {needed} inputs: the first {needed} of each batch")
            labels = items[needed] if len(items) > needed else None
            return tuple(as_tensor(item) for item in items[:needed]), {}, as_label(labels)
        if len(rest) > 1:
            self._note("batches hold more than input and label: the rest is ignored")
        labels = as_label(rest[0]) if rest else None
        if is_array(first):
            return (as_tensor(first),), {}, labels
        if isinstance(first, Mapping):
            args, kwargs, own = self._spread_mapping(first, where)
            return args, kwargs, own if labels is None else labels
        if isinstance(first, tuple | list) and first and all(map(is_array, first)):
            return tuple(as_tensor(item) for item in first), {}, labels
        raise DataError(
            f"{where}: its input is a {type(first).__name__}",
            hint="Expected a tensor, a tuple or dict of tensors.",
        )

    def _spread_mapping(
        self, items: Mapping[Any, Any], where: str
    ) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        signature = self.signature
        taken = {
            str(name): as_tensor(item)
            for name, item in items.items()
            if name in signature.names or (signature.any_keyword and not is_label(str(name)))
        }
        spare = {str(name): item for name, item in items.items() if str(name) not in taken}
        labels = next((as_label(item) for name, item in spare.items() if is_label(name)), None)
        inputs = {name: i for name, i in spare.items() if not is_label(name) and is_array(i)}
        if taken:
            if inputs:
                self._note(f"{signature} does not take {', '.join(inputs)}: ignored")
            return (), taken, labels
        name = _the_input(inputs)
        if name is None:
            raise DataError(
                f"{where} is a dict with {', '.join(map(str, items))}; "
                f"none of them is a parameter of {signature}",
                hint="Name the entries as forward does, or yield tuples (input, label).",
            )
        self._note(f"dict batches: {name} is given to {signature} as its input")
        return (as_tensor(inputs[name]),), {}, labels

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _the_input(inputs: Mapping[str, Any]) -> str | None:
    """The entry that is the input: by its name, else the only one."""
    for name in _INPUT_NAMES:
        if name in inputs:
            return name
    return next(iter(inputs)) if len(inputs) == 1 else None


def _sized(args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Any, where: str) -> Batch:
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
    if not tensors:
        raise DataError(f"{where} holds no tensor")
    if tensors[0].dim() == 0:
        raise DataError(
            f"{where} is a tensor without dimensions", hint="The first dimension counts samples."
        )
    size = tensors[0].shape[0]
    if size == 0:
        raise DataError(f"{where} is empty: it holds 0 samples")
    if isinstance(labels, torch.Tensor) and (labels.dim() == 0 or labels.shape[0] != size):
        count = labels.shape[0] if labels.dim() else 1
        raise DataError(f"{where} holds {size} samples and {count} labels")
    return Batch(args, dict(kwargs), labels, size)


def check_finite_inputs(batch: Batch, where: str, first_sample: int = 0) -> None:
    """Refuse NaN and infinity, naming the first sample that has one.

    Args:
        batch: What to look at.
        where: How to call it.
        first_sample: Index of the batch's first sample in the whole data.

    Raises:
        DataError: If an input is not finite.
    """
    for tensor in (*batch.args, *batch.kwargs.values()):
        row = first_not_finite(tensor)
        if row is not None:
            is_sample = tensor.dim() > 0 and tensor.shape[0] == batch.size
            sample = f"sample {first_sample + row}" if is_sample else "a value"
            raise DataError(
                f"{where}: {sample} holds NaN or infinity",
                hint="Statistics would be NaN everywhere; drop or repair that sample.",
            )


def first_not_finite(tensor: Any) -> int | None:
    """Index along the first dimension of the first NaN or infinity."""
    if not isinstance(tensor, torch.Tensor) or not (
        tensor.dtype.is_floating_point or tensor.dtype.is_complex
    ):
        return None
    if tensor.numel() == 0 or bool(torch.isfinite(tensor).all()):
        return None
    bad = ~torch.isfinite(tensor)
    if tensor.dim() == 0:
        return 0
    return int(bad.reshape(tensor.shape[0], -1).any(dim=1).nonzero()[0, 0])
