"""``--arch-arg`` and ``--data-arg``: ``name=value`` as typed, turned into keyword arguments."""

from __future__ import annotations

import ast
import inspect
import json
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from varshift_cli.errors import UsageError
from varshift_cli.loading.importing import nearest_hint
from varshift_cli.nearby import file_hint

_LONGEST = 60


def parse_arguments(
    texts: Sequence[str], option: str, search_dirs: Sequence[Path] = ()
) -> dict[str, Any]:
    """Keyword arguments from ``name=value`` texts.

    The value is JSON where it parses as JSON, else what Python calls a literal (``(2, 2)``,
    ``None``, ``True``, ``.5``), else the text itself; ``@file`` reads a ``.json``, ``.yaml`` or
    ``.toml`` file.

    Raises:
        UsageError: For a text without ``=``, a name given twice, or a file that cannot be read.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise UsageError(
                f"{option} {text!r} is not of the form name=value",
                hint=f"For example: {option} width=32, {option} 'blocks=(2, 2)' or "
                f"{option} config=@config.json",
            )
        if name in found:
            raise UsageError(f"{option} gives {name!r} twice")
        found[name] = _value(value, option, search_dirs)
    return found


def _value(text: str, option: str, search_dirs: Sequence[Path]) -> Any:
    if text.startswith("@"):
        return _read(text[1:], option, search_dirs)
    try:
        return json.loads(text)
    except ValueError:
        return _literal(text)


def _literal(text: str) -> Any:
    """What Python's literal says, else the text: a list of words, or ``1,2``, is no literal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a stray backslash: then it is a text
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, Warning):
        return text
    bare_tuple = isinstance(value, tuple) and not text.lstrip().startswith("(")
    return text if bare_tuple or isinstance(value, bytes) else value


def _read(name: str, option: str, search_dirs: Sequence[Path]) -> Any:
    """The content of a JSON, YAML or TOML file."""
    path = next((p for p in (Path(), *search_dirs) if (p / name).is_file()), None)
    if path is None:
        raise UsageError(f"{option}: there is no file {name}", hint=file_hint(name))
    path = path / name
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix in {".yaml", ".yml"}:
            return _yaml(text, path, option)
    except (OSError, ValueError) as problem:
        raise UsageError(f"{option}: {path} cannot be read: {problem}") from problem
    raise UsageError(
        f"{option}: {path} is of no known kind", hint="Expected .json, .yaml or .toml."
    )


def _yaml(text: str, path: Path, option: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as problem:
        raise UsageError(
            f"{option}: reading {path} needs PyYAML, which is not installed",
            hint="pip install pyyaml, or give the values as .json or .toml.",
        ) from problem
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise UsageError(f"{option}: {path} is not proper YAML: {problem}") from problem


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The callable's parameters; ``None`` where Python cannot tell (some builtins)."""
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError):
        return None


def accepts_any(parameters: Mapping[str, inspect.Parameter] | None) -> bool:
    """Whether any keyword is accepted, or nobody can tell."""
    return parameters is None or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def by_keyword(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Names that can be given as keywords."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, p in parameters.items() if p.kind in kinds]


def foreign_to(function: Callable[..., Any], given: Iterable[str]) -> list[str]:
    """Names that a callable has no parameter for."""
    parameters = parameters_of(function)
    if parameters is None or accepts_any(parameters):
        return []
    known = by_keyword(parameters)
    return [name for name in given if name not in known]


def check_arguments(
    function: Callable[..., Any], given: Mapping[str, Any], label: str, option: str
) -> None:
    """Compare the given names with the callable's own.

    Raises:
        UsageError: For an unknown name (with the nearest) or a missing one.
    """
    parameters = parameters_of(function)
    if parameters is None:
        return
    for name in foreign_to(function, given):
        raise UsageError(
            f"{label} has no parameter {name!r} ({option})",
            hint=nearest_hint(name, by_keyword(parameters)),
        )
    missing = [
        name
        for name, p in parameters.items()
        if p.default is inspect.Parameter.empty
        and p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and name not in given
    ]
    if missing:
        raise UsageError(
            f"{label} needs a value for {', '.join(missing)}",
            hint=" ".join(f"{option} {name}=VALUE" for name in missing),
        )


def show_call(label: str, given: Mapping[str, Any]) -> str:
    """``model.py:build(p=0.5)``, long values cut."""
    shown = ", ".join(f"{name}={_short(value)}" for name, value in given.items())
    return f"{label}({shown})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
