"""A batch that is an object, laid open: its fields can be cut, joined and moved."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """What the fields belong to, to be made again with others in their place."""

    template: Any
    names: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        """By type and names: two batches of one form."""
        return isinstance(other, Kind) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        kind = type(self.template)
        return f"{kind.__module__}.{kind.__qualname__}({', '.join(self.names)})"


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The fields of a user's object, those that are such objects laid open as well."""

    kind: Kind
    values: tuple[Any, ...]

    def closed(self) -> Any:
        """An object like the user's, with these fields; made without calling its class."""
        made = copy.copy(self.kind.template)
        for name, value in zip(self.kind.names, self.values, strict=True):
            object.__setattr__(made, name, closed(value))
        return made


def closed(item: Any) -> Any:
    """A batch in the user's own form again, in whatever nesting."""
    if isinstance(item, Fields):
        return item.closed()
    if isinstance(item, dict):
        return {name: closed(each) for name, each in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*map(closed, item))
    if type(item) in {list, tuple}:
        return type(item)(map(closed, item))
    return item
