"""Settings of the gate that are more than a number: thresholds by layer, suppressions."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from varshift_cli.config.values import number, table, text, texts, unknown, wrong
from varshift_cli.errors import ConfigError
from varshift_cli.records import LayerRule, Suppression

_SUPPRESSION = ("layers", "code", "reason", "expires")


def layer_rules(value: object, where: str) -> tuple[LayerRule, ...]:
    """``{"head.*" = {max-shift = 1.5}}``, or short ``{"head.*" = 1.5}``, in the file's order."""
    return tuple(
        _rule(pattern, each, f"{where}.{pattern!r}")
        for pattern, each in table(value, where).items()
    )


def suppressions(value: object, where: str) -> tuple[Suppression, ...]:
    """A list of tables, each with a reason, and with layers, a code, or both."""
    if not isinstance(value, list):
        raise wrong(where, "a list of tables, [[suppress]]", value)
    found: list[Suppression] = []
    for index, each in enumerate(value):
        found += _suppressed(each, f"{where}[{index}]")
    return tuple(found)


def _rule(pattern: str, value: object, where: str) -> LayerRule:
    if "-" in pattern and "*" not in pattern:
        raise ConfigError(
            f"{where}: {pattern} is a setting, and stands among the patterns of layers",
            hint="put it above [layers]: in TOML what follows a table's name belongs to the table",
        )
    if not isinstance(value, dict):
        return LayerRule(pattern, number(value, where))
    entry = {key.replace("_", "-"): each for key, each in value.items()}
    if set(entry) != {"max-shift"}:
        raise ConfigError(
            f"{where} must be {{ max-shift = X }}, but has {', '.join(value) or 'nothing'}",
            hint=f'a pattern with dots is quoted: "{pattern}.*" = {{ max-shift = 1.5 }}',
        )
    return LayerRule(pattern, number(entry["max-shift"], f"{where}.max-shift"))


def _suppressed(value: object, where: str) -> list[Suppression]:
    entry = _entry(table(value, where), _SUPPRESSION, where)
    if "reason" not in entry:
        raise ConfigError(
            f"{where} has no reason",
            hint='say why, for whoever reads the report: reason = "cut off before deployment"',
        )
    if "layers" not in entry and "code" not in entry:
        raise ConfigError(
            f"{where} says neither layers nor code: it would suppress everything",
            hint='layers = "head.*" suppresses layers by name, code = "VS101" by cause',
        )
    reason = text(entry["reason"], f"{where}.reason")
    code = text(entry["code"], f"{where}.code") if "code" in entry else None
    expires = _day(entry["expires"], f"{where}.expires") if "expires" in entry else None
    patterns = texts(entry["layers"], f"{where}.layers") if "layers" in entry else (None,)
    return [Suppression(reason, pattern, code, expires) for pattern in patterns]


def _entry(value: dict[str, Any], known: tuple[str, ...], where: str) -> dict[str, Any]:
    for key in value:
        if key.replace("_", "-") not in known:
            raise unknown(key, known, where)
    return {key.replace("_", "-"): each for key, each in value.items()}


def _day(value: object, where: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(text(value, where))
    except (ValueError, ConfigError):
        raise wrong(where, "a day such as 2027-01-31", value) from None
