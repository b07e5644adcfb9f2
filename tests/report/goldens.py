"""Screens as literal text files, compared to the letter.

To write them anew after a deliberate change: VARSHIFT_REGENERATE=1 pytest tests/report
Then read the difference: each line of it is something that users will see.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "goldens"


def compare(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("VARSHIFT_REGENERATE") == "1":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
