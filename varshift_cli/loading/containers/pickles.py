"""Reads a pickle as data: a small interpreter that calls nothing.

``pickle.Unpickler`` with a strict ``find_class`` still sets attributes, calls ``__setstate__``,
serves ``EXT`` opcodes from a cache past ``find_class``, grows its memo to whatever index a file
names and hashes tuples nested deep enough to overflow the stack. Here a global is a name
(:class:`GlobalRef`), an object is what was written about it (:class:`Opaque`), and the few
rebuilders that matter for tensors are plain functions of ours. ``pickletools`` splits the opcodes.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, cast

from varshift_cli.errors import CheckpointError

_MAX_KEY_ITEMS = 64
_MAX_KEY_BITS = 4096
_FREE_WORK = 1_000_000


@dataclass(frozen=True, slots=True)
class GlobalRef:
    """The name of a function or class in somebody's Python; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        """``module.name``, cut to a length fit for a message."""
        return f"{self.module}.{self.name}"[:200]


@dataclass(slots=True, eq=False)
class Opaque:
    """An object of a kind we do not rebuild: what the pickle says about it, and no more."""

    origin: GlobalRef | None
    """The class or function that would have made it; ``None`` where even that was computed."""
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


class PickleStream(Protocol):
    """What is needed of a stream."""

    def read(self, count: int, /) -> bytes:
        """Up to ``count`` bytes."""

    def readline(self) -> bytes:
        """Bytes up to a newline."""

    def tell(self) -> int:
        """The position."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Go elsewhere."""


Rebuilder = Callable[..., Any]
Persistent = Callable[[Any], Any]

_LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8", "FLOAT", "BINFLOAT",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = frozenset({"PROTO", "FRAME"})
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError)


def read_pickle(
    stream: PickleStream,
    *,
    what: str,
    rebuilders: Mapping[GlobalRef, Rebuilder],
    persistent: Persistent,
) -> Any:
    """Read one pickle from the stream and leave the stream right after it.

    Args:
        stream: Seekable, at the first opcode.
        what: How to call it in a message: ``data.pkl of model.pt``.
        rebuilders: The globals that are understood; all others stay :class:`Opaque`.
        persistent: Turns a persistent id (a tuple of inert values) into a value.

    Raises:
        CheckpointError: If the pickle is damaged.
    """
    reader = _Reader(rebuilders, persistent, allowance=_remaining(stream) + _FREE_WORK)
    position = 0
    try:
        for opcode, argument, at in pickletools.genops(cast("IO[bytes]", stream)):
            position = at or 0
            reader.step(opcode.name, argument)
    except _MALFORMED as problem:
        raise CheckpointError(
            f"{what} is damaged: {_plain(problem)} near byte {position:,}",
            hint="Fetch or save the file again.",
        ) from problem
    except MemoryError as problem:
        raise CheckpointError(f"{what} claims more than memory holds") from problem
    return reader.result


def _remaining(stream: PickleStream) -> int:
    """Bytes from here to the stream's end."""
    here = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return end - here


def _plain(problem: Exception) -> str:
    """One line about an error inside the interpreter."""
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__} {text[:120]}".strip()


class _Reader:
    """The stack, the memo, and one method per kind of opcode."""

    def __init__(
        self, rebuilders: Mapping[GlobalRef, Rebuilder], persistent: Persistent, allowance: int
    ) -> None:
        self.stack: list[Any] = []
        self.levels: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.rebuilders = rebuilders
        self.persistent = persistent
        self.allowance = allowance
        self.result: Any = None

    def step(self, name: str, argument: Any) -> None:
        """Obey one opcode."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name not in _IGNORED:
            handler = _HANDLERS.get(name)
            if handler is None:
                raise ValueError(f"opcode {name} has no place in a checkpoint")
            handler(self, argument)

    def pop_to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.levels.pop()
        return items

    def push_mark(self, _: Any) -> None:
        self.levels.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def pop_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def empty(self, kind: type[Any]) -> None:
        self.stack.append(kind())

    def byte_array(self, data: bytes) -> None:
        self.stack.append(bytes(data))

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise IndexError("too little on the stack")
        del self.stack[-count:]
        self.stack.append(items)

    def marked_tuple(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def marked_list(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append(items)

    def marked_dict(self, _: Any) -> None:
        items = self.pop_to_mark()
        made: dict[Any, Any] = {}
        _set_items(made, items)
        self.stack.append(made)

    def frozen_set(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append(frozenset(checked_key(item) for item in items))

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        _extend(self.stack[-1], [item])

    def appends(self, _: Any) -> None:
        items = self.pop_to_mark()
        _extend(self.stack[-1], items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        items = self.pop_to_mark()
        _set_items(self.stack[-1], items)

    def add_items(self, _: Any) -> None:
        items = self.pop_to_mark()
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(checked_key(item) for item in items)
        else:
            _extend(target, items)

    def find_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(GlobalRef(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a global is named by two strings")
        self.stack.append(GlobalRef(module, name))

    def extension(self, code: int) -> None:
        self.stack.append(GlobalRef("copyreg", f"extension {code}"))

    def reduce(self, _: Any) -> None:
        args, made_by = self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(made_by, args))

    def new_object(self, _: Any) -> None:
        self.reduce(None)

    def new_object_ex(self, _: Any) -> None:
        kwargs = self.stack.pop()
        self.reduce(None)
        if kwargs and isinstance(self.stack[-1], Opaque):
            self.stack[-1].args += (kwargs,)

    def instance(self, argument: str) -> None:
        args = self.pop_to_mark()
        self.find_global(argument)
        self.stack.append(tuple(args))
        self.reduce(None)

    def marked_object(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append(self.make(items[0], tuple(items[1:])))

    def make(self, made_by: Any, args: Any) -> Any:
        """What ``made_by(*args)`` stands for; only our own rebuilders are ever called."""
        if not isinstance(args, tuple):
            raise TypeError("arguments are not a tuple")
        if not isinstance(made_by, GlobalRef):
            return Opaque(None, args)
        rebuild = self.rebuilders.get(made_by)
        # One long list handed to ten thousand rebuilders would cost the square of the file's size.
        self.allowance -= sum(len(item) for item in args if isinstance(item, Sized))
        if self.allowance < 0:
            raise ValueError("far more is rebuilt than was written")
        return Opaque(made_by, args) if rebuild is None else rebuild(*args)

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        # A dict's attributes (`_metadata`) and a parameter's own state are of no use to us.
        if isinstance(target, Opaque):
            target.state = state

    def persistent_text(self, argument: str) -> None:
        self.stack.append(self.persistent(argument))

    def persistent_value(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def stop(self, _: Any) -> None:
        self.result = self.stack.pop()


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, Opaque):
        target.elements.extend(items)
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise TypeError(f"cannot append to {type(target).__name__}")


def _set_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, Opaque):
        target = target.items
    if not isinstance(target, dict):
        raise TypeError(f"cannot set items of {type(target).__name__}")
    if len(items) % 2:
        raise IndexError("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[checked_key(key)] = value


def checked_key(key: Any) -> Any:
    """The key, if hashing it is cheap and cannot overflow the stack.

    Raises:
        TypeError: If it is a container other than a short tuple, or a huge integer.
    """
    if isinstance(key, tuple):
        if len(key) > _MAX_KEY_ITEMS or any(isinstance(item, tuple) for item in key):
            raise TypeError("a dict key is a nested or very long tuple")
        for item in key:
            checked_key(item)
    elif isinstance(key, int) and key.bit_length() > _MAX_KEY_BITS:
        raise TypeError("a dict key is a huge integer")
    elif isinstance(key, frozenset):
        raise TypeError("a dict key is a set")
    return key


_HANDLERS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader.push_mark,
    "POP": _Reader.pop,
    "POP_MARK": _Reader.pop_mark,
    "DUP": _Reader.duplicate,
    "PUT": _Reader.put,
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "MEMOIZE": _Reader.memoize,
    "GET": _Reader.get,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "EMPTY_LIST": lambda reader, _: reader.empty(list),
    "EMPTY_TUPLE": lambda reader, _: reader.empty(tuple),
    "EMPTY_DICT": lambda reader, _: reader.empty(dict),
    "EMPTY_SET": lambda reader, _: reader.empty(set),
    "BYTEARRAY8": _Reader.byte_array,
    "TUPLE": _Reader.marked_tuple,
    "TUPLE1": lambda reader, _: reader.tuple_of(1),
    "TUPLE2": lambda reader, _: reader.tuple_of(2),
    "TUPLE3": lambda reader, _: reader.tuple_of(3),
    "LIST": _Reader.marked_list,
    "DICT": _Reader.marked_dict,
    "FROZENSET": _Reader.frozen_set,
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "ADDITEMS": _Reader.add_items,
    "GLOBAL": _Reader.find_global,
    "STACK_GLOBAL": _Reader.stack_global,
    "EXT1": _Reader.extension,
    "EXT2": _Reader.extension,
    "EXT4": _Reader.extension,
    "REDUCE": _Reader.reduce,
    "NEWOBJ": _Reader.new_object,
    "NEWOBJ_EX": _Reader.new_object_ex,
    "INST": _Reader.instance,
    "OBJ": _Reader.marked_object,
    "BUILD": _Reader.build,
    "PERSID": _Reader.persistent_text,
    "BINPERSID": _Reader.persistent_value,
    "STOP": _Reader.stop,
}
