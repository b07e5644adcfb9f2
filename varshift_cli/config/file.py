"""``varshift.toml``, or ``[tool.varshift]`` in ``pyproject.toml``: options that need no typing.

Only the current directory is looked at, never the checkpoint's: ``arch`` and ``data`` name code
that is run, and a downloaded folder must not choose it. For the same reason ``allow-pickle``, and
what writes or overwrites files, can be said on the command line alone.

Keys are the long option names, with ``-`` or ``_``:

    arch = "model.py:build"
    arch-arg = { p = 0.5 }        # or ["p=0.5"]
    data = "calib.npz"
    max-shift = 1.25
    baseline = "base.json"        # then only what got worse fails
    min-accuracy = 0.97           # of a regression min-r2, of --metric min-metric

    [layers]                      # in pyproject.toml: [tool.varshift.layers]
    "head.*" = { max-shift = 1.5 }

    [[suppress]]                  # in pyproject.toml: [[tool.varshift.suppress]]
    layers = "aux.*"
    reason = "cut off before deployment"
    expires = 2027-01-31
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varshift_cli.config.policy import layer_rules, suppressions
from varshift_cli.config.values import (
    arguments,
    count,
    flag,
    kind,
    number,
    samples,
    text,
    texts,
    unknown,
)
from varshift_cli.errors import ConfigError
from varshift_cli.records import LayerRule, Policy, Suppression

OWN_FILE = "varshift.toml"
SHARED_FILE = "pyproject.toml"

COMMAND_LINE_ONLY = (
    "allow-pickle",
    "auto",
    "correct",
    "dry-run",
    "force",
    "in-place",
    "include-frozen",
    "output",
    "overwrite",
    "recalibrate",
    "report",
    "revert",
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
    train_data: str | None = None
    input: str | None = None
    label: str | None = None
    forward: str | None = None
    noise: tuple[str, ...] = ()
    """``file.py:Class`` of each."""
    metric: str | None = None
    batch_size: int | None = None
    train_batch_size: int | None = None
    samples: int | str | None = None
    """A number, ``auto`` or ``auto:N``."""
    seed: int | None = None
    device: str | None = None
    memory: str | None = None
    holdout: str | None = None
    max_shift: float | None = None
    layers: tuple[LayerRule, ...] = ()
    """Thresholds of their own, in the order of the file."""
    max_changed_predictions: float | None = None
    min_accuracy: float | None = None
    min_r2: float | None = None
    min_metric: float | None = None
    suppress: tuple[Suppression, ...] = ()
    baseline: str | None = None
    format: str | None = None
    order: str | None = None
    all: bool | None = None
    channels: bool | None = None
    no_attribute: bool | None = None
    quiet: bool | None = None

    @property
    def policy(self) -> Policy:
        """What the file asks of a report."""
        return Policy(
            self.max_shift,
            self.layers,
            self.max_changed_predictions,
            self.min_accuracy,
            self.min_r2,
            self.min_metric,
            self.suppress,
        )


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
    import tomllib  # noqa: PLC0415  where there is no file nothing waits for it

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
        raise ConfigError(f"./{SHARED_FILE}: tool.varshift must be a table, not {kind(table)}")
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
    return unknown(key, _READERS, source)


_READERS: Mapping[str, Callable[[object, str], Any]] = {
    "arch": text,
    "arch-arg": arguments,
    "key": text,
    "data": text,
    "data-arg": arguments,
    "train-data": text,
    "input": text,
    "label": text,
    "forward": text,
    "noise": texts,
    "metric": text,
    "batch-size": count,
    "train-batch-size": count,
    "samples": samples,
    "seed": count,
    "device": text,
    "memory": text,
    "holdout": text,
    "max-shift": number,
    "layers": layer_rules,
    "max-changed-predictions": number,
    "min-accuracy": number,
    "min-r2": number,
    "min-metric": number,
    "suppress": suppressions,
    "baseline": text,
    "format": text,
    "order": text,
    "all": flag,
    "channels": flag,
    "no-attribute": flag,
    "quiet": flag,
}
