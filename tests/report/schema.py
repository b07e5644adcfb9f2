"""The published schema, made from the records: annotations, and docstrings of fields.

    python -m tests.report.schema            # is it in step?
    python -m tests.report.schema --update   # write it anew

A field that is added to a record needs nothing but the second line.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import varshift_cli.report
from varshift_cli.records import SCHEMA_VERSION, Interval, Report
from varshift_cli.report.encoding import _keys
from varshift_cli.report.json import _ORDER
from varshift_cli.report.plausible import RANGES

PATH = Path(varshift_cli.report.__file__).with_name("schema.json")

SCALARS = {int: "integer", str: "string", bool: "boolean", float: "number"}


def schema():
    """The schema of a report as a JSON value."""
    found = {}
    _define(Report, found)
    root = found.pop(Report.__name__)
    root["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    root["required"].append("schema_version")  # has a default only for those who build a Report
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:varshift:report:{SCHEMA_VERSION}",
        "title": "varshift report",
        **root,
        "$defs": {name: found[name] for name in sorted(found)},
    }


def text():
    """The schema file, letter by letter."""
    return json.dumps(schema(), indent=2) + "\n"


def _define(kind, found):
    """Describe a record, and all that it holds, under its name."""
    if kind.__name__ in found:
        return
    found[kind.__name__] = described = {
        "description": _plain(inspect.getdoc(kind)),
        "type": "object",
        "properties": {},
        "required": [],
    }
    hints, notes = get_type_hints(kind), _field_docstrings(kind)
    by_name = {each.name: each for each in fields(kind)}
    for key in _keys(kind, _ORDER.get(kind, ())):
        value = _schema_of(hints[key], found)
        if key in RANGES.get(kind, {}):
            value |= _range(RANGES[kind][key])
        if key in notes:
            value["description"] = notes[key]
        described["properties"][key] = value
        each = by_name[key]
        if each.default is MISSING and each.default_factory is MISSING:
            described["required"].append(key)


def _schema_of(kind, found):
    origin = get_origin(kind)
    if kind is Any:
        return {}
    if origin in (Union, UnionType):
        (only,) = (each for each in get_args(kind) if each is not NoneType)
        return _or_null(_schema_of(only, found))
    if origin is tuple:
        (item, _) = get_args(kind)
        items = _schema_of(item, found)
        # A figure of a channel that is not finite is null.
        return {"type": "array", "items": _or_null(items) if item is float else items}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema_of(get_args(kind)[1], found)}
    if kind is Interval:
        return {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    if is_dataclass(kind):
        _define(kind, found)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if issubclass(kind, Enum):
        return {"enum": [each.value for each in kind]}
    return {"type": SCALARS[kind]}


def _or_null(value):
    if "type" in value:
        return {**value, "type": [value["type"], "null"]}
    if "enum" in value:
        return {"enum": [*value["enum"], None]}
    return {"anyOf": [value, {"type": "null"}]} if value else value


def _range(allowed):
    ends = {"minimum": allowed.least, "maximum": allowed.most}
    return {name: end for name, end in ends.items() if end is not None}


def _field_docstrings(kind):
    """The string below each field that has one."""
    (node,) = ast.parse(inspect.getsource(kind)).body
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and is_text:
            found[field.target.id] = _plain(below.value.value)
    return found


def _plain(docstring):
    """A docstring in one line, without reStructuredText."""
    words = " ".join(docstring.split())
    words = re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", words)
    return words.replace("``", "`")


if __name__ == "__main__":
    if "--update" in sys.argv:
        PATH.write_text(text(), encoding="utf-8")
    if PATH.read_text(encoding="utf-8") != text():
        sys.exit(f"{PATH} is out of step: python -m tests.report.schema --update")
