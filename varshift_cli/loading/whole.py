"""Batches that go to a user's function as the loader gave them; what in them is input and label.

Tuples, lists, dicts, dataclasses and other objects with tensors in their fields, in any nesting.
What torch cannot take apart is laid open (:class:`~varshift_cli.records.fields.Fields`), and closed
again before the function sees it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node, tree_leaves

from varshift_cli.errors import DataError
from varshift_cli.loading.converting import as_label, as_tensor, is_array
from varshift_cli.loading.forward import is_label
from varshift_cli.records import Batch
from varshift_cli.records.fields import Fields, Kind

register_pytree_node(
    Fields,
    lambda fields: (list(fields.values), fields.kind),
    lambda values, kind: Fields(kind, tuple(values)),
)


def whole_batch(item: Any, where: str, inputs: int, note: Callable[[str], None]) -> Batch:
    """A batch that goes on whole; its labels are looked for as well.

    Labels are the field or entry that is named so; of a tuple without names the entry after the
    inputs, and where more follow the first that is not shaped like the input: a mask or a second
    view is.

    Args:
        item: As the loader gave it.
        where: How it is called in messages.
        inputs: How many inputs the model's own ``forward`` requires; in a tuple they stand first.
        note: Told what was taken as labels, where that is not plain.

    Raises:
        DataError: It holds no tensor that counts samples.
    """
    item = opened(item)
    size = _size(item, where)
    place = _place_of_labels(item, size, inputs)
    if place is None:
        return Batch((item,), {}, None, size)
    labels = as_label(_parts(item)[place])
    if _is_unnamed(item) and len(item) > len(_XY):
        note(
            f"labels are entry {place + 1} of the {len(item)} in each batch, of shape "
            f"{(*labels.shape[1:],)} a sample; a dict, NamedTuple or dataclass with one named y, "
            "labels or targets says which they are"
        )
    return Batch((item,), {}, labels, size)


_XY = ("input", "labels")


def inputs_of(batch: Batch) -> Iterator[Tensor]:
    """The tensors of a whole batch that are no labels, as far as can be told."""
    item = batch.args[0]
    names = _names(item)
    for place, part in enumerate(_parts(item)):
        if names is None:
            # Of two, the second is the targets, though they may be nothing that can be scored.
            skipped = part is batch.labels or (place == 1 and len(item) == len(_XY))
        else:
            skipped = is_label(names[place])
        if not skipped:
            yield from (leaf for leaf in tree_leaves(part) if isinstance(leaf, Tensor))


def opened(item: Any) -> Any:
    """Arrays as tensors, mappings as dicts, objects as their fields."""
    if is_array(item):
        return as_tensor(item)
    if isinstance(item, Mapping):
        return {name: opened(each) for name, each in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*map(opened, item))
    if type(item) in {list, tuple}:
        return type(item)(map(opened, item))
    names = _fields_of(item)
    if not names:
        return item
    return Fields(Kind(item, names), tuple(opened(getattr(item, name)) for name in names))


def _fields_of(item: Any) -> tuple[str, ...]:
    """The fields of a dataclass, or the attributes of another object that holds tensors itself."""
    if isinstance(item, type | torch.nn.Module):
        return ()
    if dataclasses.is_dataclass(item):
        return tuple(each.name for each in dataclasses.fields(item) if hasattr(item, each.name))
    own = getattr(item, "__dict__", {})
    return tuple(own) if any(is_array(each) for each in own.values()) else ()


def _size(item: Any, where: str) -> int:
    """How many samples: the commonest length of what has one."""
    lengths = Counter(
        len(leaf) for leaf in tree_leaves(item) if isinstance(leaf, Tensor) and leaf.dim()
    )
    if not lengths:
        kind = type(item.kind.template if isinstance(item, Fields) else item).__name__
        raise DataError(
            f"{where} is a {kind} in which no tensor was found",
            hint="With a forward of your own a batch may be a tensor or array; a tuple, list, "
            "dict, NamedTuple or dataclass of them, in any nesting; or an object with tensors as "
            "attributes. The first dimension counts samples.",
        )
    size = lengths.most_common(1)[0][0]
    if size == 0:
        raise DataError(f"{where} is empty")
    return size


def _place_of_labels(item: Any, size: int, inputs: int) -> int | None:
    """Where labels stand among the parts of a batch."""

    def fits(part: Any) -> bool:
        labels = as_label(part)
        return isinstance(labels, Tensor) and labels.dim() > 0 and len(labels) == size

    parts, names = _parts(item), _names(item)
    if names is not None:
        named = [place for place, name in enumerate(names) if is_label(name)]
        return next((place for place in named if fits(parts[place])), None)
    start = max(inputs, 1) if inputs < len(parts) else 1
    places = [place for place in range(start, len(parts)) if fits(parts[place])]
    input_shape = _shape(parts[0])
    unlike = [place for place in places if _shape(parts[place]) != input_shape]
    return next(iter(unlike or places), None)


def _shape(part: Any) -> tuple[int, ...] | None:
    return tuple(part.shape) if isinstance(part, Tensor) else None


def _parts(item: Any) -> Sequence[Any]:
    """The entries or fields of a batch; a single tensor is the only one."""
    if isinstance(item, Fields):
        return item.values
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, tuple | list) else [item]


def _names(item: Any) -> tuple[str, ...] | None:
    if isinstance(item, Fields):
        return item.kind.names
    if isinstance(item, dict):
        return tuple(map(str, item))
    names: tuple[str, ...] | None = getattr(item, "_fields", None)
    return names


def _is_unnamed(item: Any) -> bool:
    return isinstance(item, tuple | list) and _names(item) is None
