import json
import subprocess
import sys

import torch

from tests.static.files import changed, healthy, linted
from varshift_cli.report import render_lint


def test_screen(run, tmp_path):
    """The table is what the report room renders, on stdout, and errors exit 0 too."""
    report = linted(changed(1, "running_var", [float("nan")] * 6), tmp_path)

    ended = run("lint", tmp_path / "model.safetensors")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == render_lint(report)
    assert "VS202" in ended.out


def test_json(run, tmp_path):
    """--format json holds layers, findings and the bytes that were read."""
    linted(healthy(), tmp_path)

    value = json.loads(run("lint", tmp_path / "model.safetensors", "--format", "json").out)

    assert value["schema_version"] == 1
    assert [layer["name"] for layer in value["layers"]] == ["body.0.bn", "body.1.bn", "body.2.bn"]
    assert 0 < value["bytes_read"] < value["file_bytes"]
    assert value["findings"] == []


def test_no_file(run):
    """A missing file exits 2."""
    ended = run("lint", "nowhere.pt")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: no such file: nowhere.pt")


def test_no_batch_norm(run, tmp_path):
    """A file without BN exits 3."""
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pt")

    assert run("lint", tmp_path / "a.pt").code == 3


def test_no_torch(tmp_path):
    """On a safetensors file the whole command runs without importing torch."""
    linted(healthy(), tmp_path)
    code = (
        "import sys\n"
        "from varshift_cli.cli import main\n"
        "try:\n"
        f"    main(['lint', {str(tmp_path / 'model.safetensors')!r}])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
