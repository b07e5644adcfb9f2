"""The few globals of a checkpoint's pickle that we understand, as functions of inert values.

All else stays an :class:`~varshift_cli.loading.containers.pickles.Opaque`. None of these functions
reads a file, sets an attribute of something shared or calls what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from varshift_cli.loading.containers.pickles import GlobalRef, Opaque, Rebuilder, checked_key
from varshift_cli.loading.containers.tensors import (
    DTYPES,
    MAX_DIMS,
    STORAGE_DTYPES,
    StorageRef,
    TensorRef,
)

_TORCH_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})
_PLAIN_NUMPY = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_WITH_METADATA = 3
_NOWHERE = StorageRef("", torch.uint8, 0, 0)


def storage_ref(pid: Any, *, prefix: str = "") -> StorageRef:
    """The storage that a persistent id names.

    Args:
        pid: ``("storage", class, key, location, count, ...)`` as read.
        prefix: Put before the key to make the record's name.

    Raises:
        TypeError, ValueError: If the id is of another form; the reader tells of a damaged pickle.
    """
    match pid:
        case ("storage", kind, key, _, count, *_):
            pass
        case _:
            raise ValueError("a persistent id is not that of a storage")
    if not isinstance(key, str) or not isinstance(count, int) or count < 0:
        raise TypeError("a storage's key or size is of the wrong type")
    dtype = _storage_dtype(kind)
    return StorageRef(prefix + key, dtype, 0, count * dtype.itemsize)


def _storage_dtype(kind: Any) -> torch.dtype:
    if isinstance(kind, GlobalRef) and kind.module in _TORCH_MODULES:
        dtype = STORAGE_DTYPES.get(kind.name)
        if dtype is not None:
            return dtype
        raise ValueError(f"storage of kind {kind.name[:60]} is not read (quantized?)")
    raise TypeError("a storage names no kind of ours")


def _tensor(
    place: Any, shape: Any, stride: Any, *, dtype: torch.dtype | None = None, metadata: Any = None
) -> TensorRef:
    """A tensor from ``(storage, offset)``, sizes and strides as read."""
    storage, offset = place
    if not isinstance(storage, StorageRef):
        raise TypeError("a tensor without a storage")
    return TensorRef(
        storage=storage,
        dtype=storage.dtype if dtype is None else dtype,
        offset=_integer(offset),
        shape=tuple(_integer(n) for n in _sequence(shape)),
        stride=tuple(_integer(n) for n in _sequence(stride)),
        obstacle="it is stored conjugated or negated" if metadata else None,
    )


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("a size is not an integer")
    return int(value)


def _sequence(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMS:
        raise TypeError("sizes are not a tuple")
    return tuple(value)


def _tensor_v1(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorRef:
    return _tensor((storage, offset), shape, stride)


def _tensor_v2(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TensorRef:
    """``rest``: requires_grad, hooks, and perhaps metadata."""
    metadata = rest[2] if len(rest) == _WITH_METADATA else None
    return _tensor((storage, offset), shape, stride, metadata=metadata)


def _tensor_v3(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TensorRef:
    """``rest``: requires_grad, hooks, dtype, and perhaps metadata."""
    _, _, dtype, *metadata = rest
    known = DTYPES.get(dtype.name) if isinstance(dtype, GlobalRef) else None
    if known is None:
        raise ValueError(f"element type {dtype!s:.60} is not read")
    return _tensor((storage, offset), shape, stride, dtype=known, metadata=any(metadata))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _from_type(rebuild: Any, _kind: Any, args: Any, _state: Any = None) -> Any:
    """A tensor subclass: its plain tensor, where it has one."""
    plain = _TENSORS.get(rebuild) if isinstance(rebuild, GlobalRef) else None
    return Opaque(None, (rebuild, args)) if plain is None else plain(*_sequence(args))


def _unreadable(kind: str) -> Rebuilder:
    """A tensor that is there but that we do not read; an error only once it is asked for."""

    def rebuild(*_: Any) -> TensorRef:
        return TensorRef(_NOWHERE, torch.uint8, 0, (0,), (1,), obstacle=f"it is {kind}")

    return rebuild


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return dict(pairs)
    return {checked_key(key): value for key, value in pairs}


def _default_mapping(_factory: Any = None, pairs: Any = ()) -> dict[Any, Any]:
    return _mapping(pairs)


def _set(items: Any = ()) -> set[Any]:
    return {checked_key(item) for item in _plain(items)}


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(_plain(items))


def _list(items: Any = ()) -> list[Any]:
    return list(_plain(items))


def _plain(items: Any) -> tuple[Any, ...] | list[Any] | set[Any] | frozenset[Any]:
    if not isinstance(items, tuple | list | set | frozenset):
        raise TypeError("not a plain sequence")
    return items


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    """A numpy number as a Python one; other kinds stay opaque."""
    spec = dtype.args[0] if isinstance(dtype, Opaque) and dtype.args else None
    if isinstance(spec, str) and isinstance(data, bytes) and _PLAIN_NUMPY.fullmatch(spec):
        element = np.dtype(spec)
        if len(data) == element.itemsize:
            return np.frombuffer(data, element)[0].item()
    return Opaque(GlobalRef("numpy", "scalar"), (dtype, data))


_TENSORS: dict[GlobalRef, Rebuilder] = {
    GlobalRef("torch._utils", "_rebuild_tensor"): _tensor_v1,
    GlobalRef("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    GlobalRef("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    GlobalRef("torch._utils", "_rebuild_parameter"): _parameter,
    GlobalRef("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}

_UNREADABLE = {
    "_rebuild_qtensor": "quantized",
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "on the meta device, it has no values",
    "_rebuild_wrapper_subclass": "a wrapper subclass without values of its own",
    "_rebuild_device_tensor_from_numpy": "stored by way of numpy (XLA or another device)",
    "_rebuild_device_tensor_from_cpu_tensor": "stored for a device that is not known here",
    "_rebuild_xla_tensor": "stored by way of numpy (XLA)",
}

_BUILTINS: dict[str, Rebuilder] = {
    "dict": _mapping,
    "set": _set,
    "frozenset": _set,
    "tuple": _tuple,
    "list": _list,
}

REBUILDERS: Mapping[GlobalRef, Rebuilder] = {
    **_TENSORS,
    GlobalRef("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    **{GlobalRef("torch._utils", name): _unreadable(why) for name, why in _UNREADABLE.items()},
    GlobalRef("collections", "OrderedDict"): _mapping,
    GlobalRef("collections", "Counter"): _mapping,
    GlobalRef("collections", "defaultdict"): _default_mapping,
    **{
        GlobalRef(module, name): rebuild
        for module in ("builtins", "__builtin__")
        for name, rebuild in _BUILTINS.items()
    },
    GlobalRef("torch", "Size"): _tuple,
    GlobalRef("_codecs", "encode"): _encode,
    GlobalRef("numpy.core.multiarray", "scalar"): _numpy_scalar,
    GlobalRef("numpy._core.multiarray", "scalar"): _numpy_scalar,
}
"""Everything a pickle can have done on its behalf."""
