"""The house test: which room may import which, and what only one room may do.

The arrows are those of the package's design: A: B means that A may import B.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import varshift_cli

PACKAGE = Path(varshift_cli.__file__).parent

FACTS = {"records", "errors", "interrupts", "nearby"}
MEASURING = {"statistics", "instrument", "measurement"}

ARROWS = {
    "errors": set(),
    "heap": set(),
    "interrupts": set(),
    "nearby": set(),
    "records": set(),
    "causes": FACTS,
    "config": FACTS,
    "gate": FACTS,
    "report": FACTS | {"causes"},
    "statistics": FACTS,
    "loading": FACTS,
    "instrument": FACTS | {"statistics", "nn"},
    "measurement": FACTS | {"statistics", "instrument", "nn", "heap"},
    "diagnosis": FACTS | MEASURING,
    "remedies": FACTS | MEASURING | {"nn"},
    "nn": FACTS,
    "static": FACTS | {"loading", "version"},
    "pipeline": FACTS
    | MEASURING
    | {"diagnosis", "remedies", "loading", "gate", "causes", "version"},
    "integrations": FACTS | {"pipeline", "report", "gate", "version"},
    "cli": FACTS | {"pipeline", "static", "report", "gate", "config", "causes", "heap", "version"},
    "__init__": FACTS | {"gate", "integrations", "nn", "pipeline", "report"},
    "__main__": {"cli"},
}
"""``version`` is the package itself, from which only ``__version__`` may be taken."""

WITHOUT_TORCH = ("errors", "heap", "nearby", "records", "causes", "config", "gate", "report", "cli")
"""Rooms that answer at once; cli reaches the others from inside its commands."""

OPENERS = {
    *("pickle", "zipfile", "importlib", "runpy", "safetensors", "__import__", "exec"),
    *("numpy.load", "torch.load", "torch.jit.load", "torch.export.load"),
}
"""What opens checkpoints or imports the user's code: for loading alone."""

MODULE_CHANGERS = {
    "train",
    "eval",
    "copy_",
    "requires_grad_",
    "load_state_dict",
    "register_forward_hook",
    "register_forward_pre_hook",
}
"""Methods that change a module or its buffers: for loading, instrument and remedies alone."""

SOURCES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "varshift_cli":
                yield rest.split(".")[0].replace("__version__", "version")


def dotted(node: ast.AST) -> str:
    """``np.load`` of a call or attribute, with the usual short names spelt out."""
    if isinstance(node, ast.Name):
        return "numpy" if node.id == "np" else node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def used_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Attribute | ast.Name):
            yield dotted(node)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows(path):
    """A room imports the rooms below it and no others."""
    room = room_of(path)
    assert room in ARROWS, f"{room} is a new room: give it its arrows"

    strangers = set(imported_rooms(ast.parse(path.read_text()))) - ARROWS[room] - {room}

    assert strangers == set()


def test_no_circles():
    """No room can reach itself by the arrows."""
    for room, allowed in ARROWS.items():
        seen: set[str] = set()
        waiting = set(allowed)
        while waiting:
            below = waiting.pop()
            seen.add(below)
            waiting |= ARROWS.get(below, set()) - seen
        assert room not in seen


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_cli_prints_or_exits(path):
    """Outside cli nothing is printed and nothing ends the process."""
    if room_of(path) in {"cli", "__main__"}:
        return
    speaking = {"print", "exit", "quit", "sys.exit", "os._exit", "typer", "sys.stdout.write"}

    names = set(used_names(ast.parse(path.read_text())))

    assert names & speaking == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_loading_opens_the_users_files(path):
    """Checkpoints are opened, and the user's code imported, in loading and nowhere else."""
    # The package's own face is lazy, and so imports by name; but only its own rooms.
    own = {"importlib"} if name_of(path) == "__init__.py" else set()
    if room_of(path) == "loading":
        return

    names = set(used_names(ast.parse(path.read_text())))

    assert names & OPENERS - own == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_three_rooms_change_a_module(path):
    """Flags, hooks and weights of a module are touched in loading, instrument and remedies."""
    if room_of(path) in {"loading", "instrument", "remedies"}:
        return
    nodes = list(ast.walk(ast.parse(path.read_text())))

    methods = {
        node.func.attr
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    flags = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }

    assert methods & MODULE_CHANGERS == set()
    # What makes a layer of its own may set its flag.
    assert room_of(path) == "nn" or "training" not in flags


def test_quick_rooms_import_no_torch():
    """The face, the records and all that answers at once work without torch being imported."""
    rooms = ", ".join(f"varshift_cli.{room}" for room in WITHOUT_TORCH)
    code = (
        f"import sys, varshift_cli, {rooms}, varshift_cli.cli.app\n"
        "varshift_cli.Report, varshift_cli.VarshiftError, dir(varshift_cli)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), 'torch or numpy was imported'\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_face_is_complete():
    """Every name the package offers can be had, and everything public of records is offered."""
    for name in varshift_cli.__all__:
        assert getattr(varshift_cli, name) is not None

    with pytest.raises(AttributeError, match="no attribute 'scam'"):
        _ = varshift_cli.scam
