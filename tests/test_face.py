"""The public face: complete, typed, documented."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import varshift_cli

PUBLIC_USE = Path(__file__).parent / "typed" / "public_use.py"
FUNCTIONS = [
    name for name in varshift_cli.__all__ if inspect.isfunction(getattr(varshift_cli, name))
]


def test_every_name_has_one_home():
    """What is offered is what can be had, in order, each name once."""
    offered = list(varshift_cli.__all__)

    assert offered == sorted(set(offered))
    assert set(varshift_cli._HOMES) | {"__version__"} == set(offered)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name):
    """Each function's docstring tells of every argument, of what it returns, and what it raises."""
    function = getattr(varshift_cli, name)
    text = inspect.getdoc(function) or ""
    parameters = list(inspect.signature(function).parameters)

    if len(parameters) > 1:
        assert "Args:" in text
        assert [each for each in parameters if f"\n    {each}: " not in text] == []
        assert "Raises:" in text
    assert inspect.signature(function).return_annotation != inspect.Signature.empty


@pytest.mark.slow
def test_public_use_is_typed():
    """mypy --strict finds nothing in a file that uses all of it (as every landing does)."""
    pytest.importorskip("mypy")
    root = Path(varshift_cli.__file__).parents[1]

    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(PUBLIC_USE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )

    assert done.returncode == 0, done.stdout


def test_public_use_uses_all_functions():
    """No function is left out of the file that is type-checked."""
    text = PUBLIC_USE.read_text(encoding="utf-8")

    assert [name for name in FUNCTIONS if f"{name}(" not in text] == []
