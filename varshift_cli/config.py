"""``varshift.toml``, or ``[tool.varshift]`` in ``pyproject.toml``: options that need no typing.

Only the current directory is looked at, never the checkpoint's: ``arch`` and ``data`` name code
that is run, and a downloaded folder must not choose it. For the same reason ``allow-pickle``, and
what writes or overwrites files, can be said on the command line alone.

Keys are the long option names, with ``-`` or ``_``:

    arch = "model.py:build"
    arch-arg = { p = 0.5 }        # or ["p=0.5"]
    data = "calib.npz"
    max-shift = 1.25
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varshift_cli.errors import ConfigError

OWN_FILE = "varshift.toml"
SHARED_FILE = "pyproject.toml"

COMMAND_LINE_ONLY = (
    "allow-pickle",
    "dry-run",
    "force",
    "include-frozen",
    "output",
    "overwrite",
    "recalibrate",
    "report",
)
"""Options that no file may set: each opens, writes or overrides something."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says; ``None``, or empty, where it says nothing."""

    source: str | None = None
    """The file, as it is shown: ``./varshift.toml``."""
    ignored: str | None = None
    """A second file with settings that ``source`` takes precedence over."""
    arch: str | None = None
    arch_arg: tuple[str, ...] = ()
    """``name=value`` as on the command line."""
    key: str | None = None
    data: str | None = None
    data_arg: tuple[str, ...] = ()
    """``name=value`` as on the command line."""
    input: str | None = None
    label: str | None = None
    forward: str | None = None
    batch_size: int | None = None
    samples: int | None = None
    seed: int | None = None
    device: str | None = None
    holdout: str | None = None
    max_shift: float | None = None
    format: str | None = None
    order: str | None = None
    all: bool | None = None
    channels: bool | None = None
    quiet: bool | None = None


def load_config(folder: Path | None = None) -> Config:
    """Read the settings of a folder: ``varshift.toml``, else ``[tool.varshift]``, else nothing.

    Args:
        folder: Where to look; the current directory by default.

    Raises:
        ConfigError: The file cannot be read, has an unknown key, or a value of the wrong type.
    """
    folder = Path() if folder is None else folder
    own = _read_toml(folder / OWN_FILE)
    shared = _tool_table(_read_toml(folder / SHARED_FILE))
    if own is not None:
        ignored = None if shared is None else f"[tool.varshift] in ./{SHARED_FILE}"
        return _config(own, source=f"./{OWN_FILE}", ignored=ignored)
    if shared is not None:
        return _config(shared, source=f"./{SHARED_FILE}", ignored=None)
    return Config()


def _read_toml(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"./{path.name} cannot be read: {error}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"./{path.name} is not valid TOML: {error}") from error


def _tool_table(pyproject: Mapping[str, Any] | None) -> dict[str, Any] | None:
    tool = (pyproject or {}).get("tool")
    table = tool.get("varshift") if isinstance(tool, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ConfigError(f"./{SHARED_FILE}: tool.varshift must be a table, not {_kind(table)}")
    return table


def _config(table: Mapping[str, Any], *, source: str, ignored: str | None) -> Config:
    values: dict[str, Any] = {}
    for key, value in table.items():
        option = key.replace("_", "-")
        reader = _READERS.get(option)
        if reader is None:
            raise _unknown_key(key, option, source)
        field = option.replace("-", "_")
        if field in values:
            raise ConfigError(f"{source}: {option} is there twice, with - and with _")
        values[field] = reader(value, f"{source}: {key}")
    return Config(source=source, ignored=ignored, **values)


def _unknown_key(key: str, option: str, source: str) -> ConfigError:
    if option in COMMAND_LINE_ONLY:
        return ConfigError(
            f"{source}: {key} is not accepted from a file",
            hint=f"say --{option} on the command line, where it is needed",
        )
    near = difflib.get_close_matches(option, _READERS, n=1)
    return ConfigError(
        f"{source}: there is no setting {key!r}",
        hint=f"did you mean {near[0]}?" if near else f"settings are {', '.join(_READERS)}",
    )


def _text(value: object, where: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise _wrong(where, "a string", value)


def _flag(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(where, "true or false", value)


def _count(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _wrong(where, "a whole number", value)


def _number(value: object, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _wrong(where, "a number", value)


def _arguments(value: object, where: str) -> tuple[str, ...]:
    """A table ``{p = 0.5}``, or a list ``["p=0.5"]``, as ``name=value``."""
    if isinstance(value, dict):
        return tuple(f"{name}={_as_json(each, where)}" for name, each in value.items())
    if isinstance(value, list):
        arguments = tuple(_text(each, where) for each in value)
        if all("=" in each for each in arguments):
            return arguments
    raise _wrong(where, 'a table {name = value} or a list ["name=value"]', value)


def _as_json(value: object, where: str) -> str:
    # In a table a string is a string, even one that reads like a number, so it goes quoted; but
    # "@file.yaml" names a file, as on the command line.
    if isinstance(value, str) and value.startswith("@"):
        return value
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _wrong(where, "numbers, strings, true, false, lists and tables", value) from error


def _wrong(where: str, expected: str, value: object) -> ConfigError:
    return ConfigError(f"{where} must be {expected}, not {_kind(value)} {value!r}")


def _kind(value: object) -> str:
    names = {dict: "table", list: "list", str: "string", bool: "boolean", int: "integer"}
    return names.get(type(value), type(value).__name__)


_READERS: Mapping[str, Callable[[object, str], Any]] = {
    "arch": _text,
    "arch-arg": _arguments,
    "key": _text,
    "data": _text,
    "data-arg": _arguments,
    "input": _text,
    "label": _text,
    "forward": _text,
    "batch-size": _count,
    "samples": _count,
    "seed": _count,
    "device": _text,
    "holdout": _text,
    "max-shift": _number,
    "format": _text,
    "order": _text,
    "all": _flag,
    "channels": _flag,
    "quiet": _flag,
}
