"""Records to JSON values and back, by their type annotations.

One pair of functions serves every record, so that a field added to a record is at once in the
report and is read back from it. ``Interval`` is ``[low, high]``, an enum its value, a tuple a
list; what a record annotates as ``Any`` must hold JSON values and comes back as it is. A number
that is not finite becomes ``null``, and the reason is noted under its dotted path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from varshift_cli.errors import ReportError
from varshift_cli.records import Interval, dotted

Json = None | bool | int | float | str | list[Any] | dict[str, Any]
T = TypeVar("T")
Decoder = Callable[[Any, str], Any]
"""(JSON value, its dotted path) -> the value in a record."""


class Encoder:
    """Turns records into JSON values; ``holes`` collects what had to become ``null``.

    Args:
        order: For a record, the keys that come first, in this order; its other fields follow.
    """

    def __init__(self, order: Mapping[type, Sequence[str]]) -> None:
        self._order = order
        self.holes: dict[str, str] = {}

    def encode(self, value: Any, path: str = "") -> Json:
        """The JSON value of a record, or of anything a record holds."""
        if isinstance(value, Enum):
            return str(value.value)
        if isinstance(value, float):
            return self._number(value, path)
        if isinstance(value, Interval):
            return self._interval(value, path)
        if is_dataclass(value):
            return self.record(value, path)
        if isinstance(value, Mapping):
            return {str(key): self.encode(each, dotted(path, key)) for key, each in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self.encode(each, dotted(path, index)) for index, each in enumerate(value)]
        if value is None or isinstance(value, bool | int | str):
            return value
        raise TypeError(f"{path}: {type(value).__name__} has no place in a report")

    def record(self, value: Any, path: str = "") -> dict[str, Any]:
        """The JSON object of one record."""
        keys = _keys(type(value), self._order.get(type(value), ()))
        return {key: self.encode(getattr(value, key), dotted(path, key)) for key in keys}

    def _number(self, value: float, path: str) -> float | None:
        if math.isfinite(value):
            return float(value)
        self.holes[path] = f"not a finite number: {value}"
        return None

    def _interval(self, value: Interval, path: str) -> list[Any] | None:
        if math.isfinite(value.low) and math.isfinite(value.high):
            return [float(value.low), float(value.high)]
        self.holes[path] = f"not finite: {value.low} to {value.high}"
        return None


def decode(kind: type[T], value: Any, path: str = "") -> T:
    """The record of this type that a JSON value stands for.

    Keys that the record does not have are passed over: a later varshift may write more. A key that
    is missing is an error unless the record has a default for it.

    Raises:
        ReportError: The value does not fit; names the place by its dotted path.
    """
    wanted: Any = kind
    result: T = _decoder(wanted)(value, path)
    return result


@cache
def _decoder(kind: Any) -> Decoder:
    """How values of a type are read: found out once, for a report holds thousands of them."""
    origin = get_origin(kind)
    if kind is Any:
        return lambda value, _path: value
    if origin in (Union, UnionType):
        inner = _decoder(_without_none(kind))
        return lambda value, path: None if value is None else inner(value, path)
    if origin is tuple:
        return partial(_tuple, get_args(kind)[0])
    if origin is not None and issubclass(origin, Mapping):
        return partial(_mapping, get_args(kind)[1])
    if kind is Interval:
        return _interval
    if is_dataclass(kind):
        return partial(_record, kind)
    return partial(_enum if issubclass(kind, Enum) else _scalar, kind)


def _record(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _misfit(path, "an object", value)
    arguments: dict[str, Any] = {}
    for name, decoder, has_default in _parts(kind):
        if name in value:
            arguments[name] = decoder(value[name], dotted(path, name))
        elif not has_default:
            raise ReportError(f"the report lacks {dotted(path, name)}")
    return kind(**arguments)


@cache
def _parts(kind: Any) -> tuple[tuple[str, Decoder, bool], ...]:
    """Name, decoder and whether there is a default, of every field."""
    hints = get_type_hints(kind)
    return tuple(
        (each.name, _decoder(hints[each.name]), _has_default(each)) for each in fields(kind)
    )


def _tuple(kind: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _misfit(path, "a list", value)
    if kind is float:  # per-channel figures: a null among them was not finite
        return tuple(
            math.nan if each is None else _scalar(float, each, dotted(path, index))
            for index, each in enumerate(value)
        )
    decoder = _decoder(kind)
    return tuple(decoder(each, dotted(path, index)) for index, each in enumerate(value))


def _mapping(kind: Any, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misfit(path, "an object", value)
    decoder = _decoder(kind)
    return {key: decoder(each, dotted(path, key)) for key, each in value.items()}


_ENDS = len(fields(Interval))


def _interval(value: Any, path: str) -> Interval:
    if not isinstance(value, list) or len(value) != _ENDS:
        raise _misfit(path, "[low, high]", value)
    low, high = (_scalar(float, each, path) for each in value)
    if low > high:
        raise _misfit(path, "[low, high] with low <= high", value)
    return Interval(low, high)


def _enum(kind: type[Enum], value: Any, path: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(each.value) for each in kind)
        raise _misfit(path, f"one of {choices}", value) from None


def _scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, path)
    if type(value) is kind:
        return value
    names = {float: "a number", int: "a whole number", str: "a string", bool: "true or false"}
    raise _misfit(path, names.get(kind, kind.__name__), value)


def _finite(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isfinite(number):
        return number
    raise ReportError(f"{path} is too large for a number")


def _keys(kind: type[Any], first: Sequence[str]) -> tuple[str, ...]:
    names = [each.name for each in fields(kind)]
    return (*first, *(name for name in names if name not in first))


def _without_none(kind: Any) -> Any:
    (only,) = (each for each in get_args(kind) if each is not NoneType)
    return only


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _misfit(path: str, expected: str, value: Any) -> ReportError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return ReportError(f"{path or 'the report'} must be {expected}, not {shown}")
