"""The values that a settings file may hold, each checked, with where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from varshift_cli.errors import ConfigError
from varshift_cli.nearby import nearest


def text(value: object, where: str) -> str:
    """A string that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise wrong(where, "a string", value)


def flag(value: object, where: str) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise wrong(where, "true or false", value)


def count(value: object, where: str) -> int:
    """A whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise wrong(where, "a whole number", value)


def samples(value: object, where: str) -> int | str:
    """A whole number, or ``auto`` and the like."""
    if isinstance(value, str) and value.startswith("auto"):
        return value
    return count(value, where)


def number(value: object, where: str) -> float:
    """A number, whole or not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise wrong(where, "a number", value)


def arguments(value: object, where: str) -> tuple[str, ...]:
    """A table ``{p = 0.5}``, or a list ``["p=0.5"]``, as ``name=value``."""
    if isinstance(value, dict):
        return tuple(f"{name}={_as_json(each, where)}" for name, each in value.items())
    if isinstance(value, list):
        arguments = tuple(text(each, where) for each in value)
        if all("=" in each for each in arguments):
            return arguments
    raise wrong(where, 'a table {name = value} or a list ["name=value"]', value)


def _as_json(value: object, where: str) -> str:
    # In a table a string is a string, even one that reads like a number, so it goes quoted; but
    # "@file.yaml" names a file, as on the command line.
    if isinstance(value, str) and value.startswith("@"):
        return value
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise wrong(where, "numbers, strings, true, false, lists and tables", value) from error


def texts(value: object, where: str) -> tuple[str, ...]:
    """A string, or a list of them."""
    if isinstance(value, list) and value:
        return tuple(text(each, where) for each in value)
    if isinstance(value, str):
        return (text(value, where),)
    raise wrong(where, "a string or a list of strings", value)


def table(value: object, where: str) -> dict[str, Any]:
    """A table."""
    if isinstance(value, dict):
        return value
    raise wrong(where, "a table", value)


def wrong(where: str, expected: str, value: object) -> ConfigError:
    """The error for a value of the wrong type."""
    return ConfigError(f"{where} must be {expected}, not {kind(value)} {value!r}")


def unknown(name: str, known: Iterable[str], where: str) -> ConfigError:
    """The error for a name that there is not, with the nearest that there is."""
    choices = list(known)
    near = nearest(name.replace("_", "-"), choices, alike=0.6)
    return ConfigError(
        f"{where}: there is no setting {name!r}",
        hint=f"did you mean {near}?" if near else f"settings are {', '.join(choices)}",
    )


def kind(value: object) -> str:
    """What a TOML value is called."""
    names = {dict: "table", list: "list", str: "string", bool: "boolean", int: "integer"}
    return names.get(type(value), type(value).__name__)
