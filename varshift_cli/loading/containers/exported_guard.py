"""Looks through an exported program for places where loading it would run foreign code.

``torch.export.load`` unpickles without restriction where a file says so, evaluates expressions as
Python (by way of sympy), builds Python source from names in the graph, and calls any function of
``torch`` that a node names. Here a file passes only if it needs none of that.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from varshift_cli.errors import CheckpointError
from varshift_cli.loading.containers.zip_directory import ZipDirectory

_HINT = "If you trust whoever made the file: --allow-pickle."

_OPERATOR = re.compile(
    r"torch\.ops\.(?!loaded_libraries|load_library)[a-z]\w*\.[a-zA-Z]\w*(\.[a-zA-Z]\w*)?"
    r"|torch\.ops\.[a-z]\w*\._[a-z]\w*(\.[a-zA-Z]\w*)?"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_"
    r"|xor|not_|lshift|rshift)"
    r"|math\.[a-z]\w*"
    r"|torch\.(_)?sym_\w+"
    r"|torch\._C\._set_grad_enabled"
    r"|torch\.amp\.autocast_mode\._(enter|exit)_autocast"
)
_FILE_OPERATORS = re.compile(r"\.(from_file|save|load\w*|_?record_function\w*)(\.|$)")
_NAME = re.compile(r"[\w.\-\[\]<> :/*+]*")
_SPEC_TEXT = re.compile(r"[\w.\-\[\]<> :/*+,]*")
# Never reach code: shown in messages, split at commas and semicolons, or passed as a repr.
_FREE_TEXT = frozenset({"stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack",
                        "from_node", "as_string", "as_strings", "custom"})  # fmt: skip
_EXPRESSIONS = frozenset({"expr_str", "guards_code"})
_SPECS = frozenset({"in_spec", "out_spec"})
_OPERATORS = frozenset({"target", "as_operator"})

_FUNCTIONS = frozenset({
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float",
    "FloatPow", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity",
    "IntTrueDiv", "Integer", "IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt",
    "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne", "Not", "Or", "Pow", "PowByNatural",
    "PythonMod", "RShift", "Rational", "RoundDecimal", "RoundToInt", "StrictGreaterThan",
    "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt", "Unequality", "Where",
})  # fmt: skip
_METHODS = frozenset({"size", "stride", "storage_offset", "item", "ndim", "shape", "dim"})
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.Subscript, ast.Tuple, ast.keyword, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop,
)  # fmt: skip
_LONGEST = 10_000


def refuse_hidden_code(path: Path, directory: ZipDirectory, folder: str) -> None:
    """Let only plain graphs over plain tensors pass.

    Raises:
        CheckpointError: Naming what would run.
    """
    for name in directory.names:
        inner = name.removeprefix(folder)
        if inner.startswith("data/aotinductor/"):
            raise _refusal(path, f"{name} is compiled code")
        if inner.startswith("data/") and inner.endswith(".pt"):
            _check_samples(path, directory, name)
        elif inner.startswith(("data/weights/", "data/constants/")) and inner.endswith(".json"):
            _check_payloads(path, name, _json(path, directory, name))
        elif inner.startswith("models/") and inner.endswith(".json"):
            _check_graph(path, name, _json(path, directory, name))


def _refusal(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path}: loading it would run code from the file: {why}", hint=_HINT)


def _json(path: Path, directory: ZipDirectory, name: str) -> Any:
    try:
        return json.loads(bytes(directory.read(name)).decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{path}: {name} is not proper JSON") from problem


def _check_samples(path: Path, directory: ZipDirectory, name: str) -> None:
    """Sample inputs: torch falls back to free unpickling where the restricted one fails."""
    data = bytes(directory.read(name))
    if not data:
        return
    if "/sample_inputs/" not in name:
        raise _refusal(path, f"{name} is pickled")
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as problem:
        raise _refusal(path, f"{name} holds more than tensors") from problem


def _check_payloads(path: Path, name: str, config: Any) -> None:
    entries = config.get("config") if isinstance(config, dict) else None
    for entry in entries.values() if isinstance(entries, dict) else ():
        kind = entry.get("path_name") if isinstance(entry, dict) else None
        plain = isinstance(kind, str) and re.fullmatch(r"(weight|tensor)_\d+", kind)
        if not plain or entry.get("use_pickle") is not False:
            raise _refusal(path, f"{name} lists {kind!r:.60}, which is pickled")


def _check_graph(path: Path, name: str, graph: Any) -> None:
    for key, text in _strings(graph):
        if not _is_harmless(key, text):
            raise _refusal(path, f"{name} has {key} {text!r:.120}")


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every string with the key it stands under; keys themselves under ``key``."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, list):
            pending.extend((key, part) for part in item)
        elif isinstance(item, dict):
            for name, part in item.items():
                # A dict that maps expressions or names to facts has them as keys.
                yield "key", name
                pending.append((name, part))


def _is_harmless(key: str, text: str) -> bool:
    if key in _FREE_TEXT:
        return True
    if key in _EXPRESSIONS:
        return _is_plain_expression(text)
    if key in _OPERATORS:
        known = _OPERATOR.fullmatch(text) is not None and "__" not in text.replace("__and__", "")
        return known and _FILE_OPERATORS.search(text) is None
    if key in _SPECS:
        return _is_plain_spec(text)
    return _NAME.fullmatch(text) is not None


def _is_plain_spec(text: str) -> bool:
    """A description of nested tuples and dicts, whose keys become parameters' names."""
    try:
        spec = json.loads(text)
        strings = [part for _, part in _strings(spec)]
        for part in list(strings):
            # Keys of a dict are JSON within JSON.
            if part.startswith("["):
                strings.remove(part)
                strings.extend(inner for _, inner in _strings(json.loads(part)))
    except (ValueError, RecursionError):
        return False
    return all(_SPEC_TEXT.fullmatch(part) for part in strings)


def _is_plain_expression(text: str) -> bool:
    """Arithmetic over symbols and sizes, with known functions only."""
    if len(text) > _LONGEST:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_plain_node(node) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            known = re.fullmatch(r"(OpaqueUnaryFn|BitwiseFn)_\w+", node.func.id)
            return node.func.id in _FUNCTIONS or known is not None
        return isinstance(node.func, ast.Attribute)
    if isinstance(node, ast.Attribute):
        math = isinstance(node.value, ast.Name) and node.value.id == "math"
        return math or node.attr in _METHODS
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _NAME.fullmatch(node.value) is not None
    if isinstance(node, ast.Name):
        return "__" not in node.id
    return isinstance(node, _NODES)
