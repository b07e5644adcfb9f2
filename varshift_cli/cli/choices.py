"""Options with fixed choices, where the settings file may say what the command line does not."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from varshift_cli.cli.options import Screen
from varshift_cli.config import Config
from varshift_cli.errors import ConfigError

E = TypeVar("E", bound=StrEnum)


def choose(kind: type[E], said: E | None, in_file: str | None, config: Config) -> E | None:
    """An option with fixed choices; the file's word is checked here.

    Raises:
        ConfigError: The file names none of the choices.
    """
    if said is not None or in_file is None:
        return said
    try:
        return kind(in_file)
    except ValueError:
        names = " or ".join(each.value for each in kind)
        raise ConfigError(f"{config.source}: {in_file!r} must be {names}") from None


def screen_of(said: Screen | None, config: Config) -> Screen:
    """Table or JSON; the file's word counts where it is one of the two."""
    if said is not None:
        return said
    return Screen.JSON if config.format == Screen.JSON.value else Screen.TABLE
