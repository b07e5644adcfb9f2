from pathlib import Path

import pytest

from varshift_cli.nearby import file_hint, nearest


@pytest.mark.parametrize(
    ("name", "found"),
    [("mdel.pt", "model.pt"), ("MODEL.PT", "model.pt"), ("heldout.npz", None), ("", None)],
)
def test_nearest(name, found):
    """The name that looks alike, capitals aside; none where none does."""
    assert nearest(name, ["model.pt", "calib.npz"]) == found


def test_file_hint(tmp_path):
    """A file of the same folder, the folder that is missing, or what the caller says."""
    (tmp_path / "model.pt").touch()
    near = tmp_path / "model.pt"

    assert file_hint(tmp_path / "modle.pt", "Look.") == f"Did you mean {near}?"
    assert file_hint(tmp_path / "net.safetensors", "Look.") == "Look."
    assert file_hint(tmp_path / "away" / "model.pt", "Look.") == (
        f"There is no folder {tmp_path / 'away'}."
    )
    assert file_hint(near / "model.pt", "Look.") == "Look."


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nope.py", None),
        ("copmare.py", "compare.py"),
        ("compare.p", "compare.py"),
        ("model.pth", "model.pt"),
        ("dta", "data"),
        ("fixed.pt", "fixed2.pt"),
    ],
)
def test_suffixes(tmp_path, name, found):
    """A suffix in common is no likeness; a suffix mistyped may be forgiven."""
    for each in ("compare.py", "model.pt", "data", "fixed2.pt"):
        (tmp_path / each).touch()

    hint = file_hint(tmp_path / name)

    assert hint == (None if found is None else f"Did you mean {tmp_path / found}?")


def test_of_the_current_folder(tmp_path, monkeypatch):
    """A name without a folder is answered without one."""
    monkeypatch.chdir(tmp_path)
    Path("model.pt").touch()

    assert file_hint("modell.pt") == "Did you mean model.pt?"
