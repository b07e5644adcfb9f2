import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import samples
from varshift_cli.report import FORMATS, from_json, render_table, to_json

RECORDED = (
    *("--arch", "model.py:build", "--arch-arg", "p=0.5"),
    *("--key", "model", "--data", "calib.npz"),
)
"""How the samples say that they were made."""


@pytest.fixture
def saved():
    """The name of a saved report."""
    Path("r.json").write_text(to_json(samples.shifted()), encoding="utf-8")
    return "r.json"


def test_table(run, saved):
    """Without a format the screen of the scan is shown again; the exit code is no verdict."""
    ended = run("report", saved)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == render_table(samples.shifted(), typed=RECORDED)


def test_the_next_command(run, saved):
    """It has the model and data of the report, but for what the settings file says already."""
    Path("varshift.toml").write_text('arch = "model.py:build"\n', encoding="utf-8")

    assert "varshift fix model.pt --key model --data calib.npz" in run("report", saved).out


def test_all(run, saved):
    """--all and --order are those of a scan."""
    expected = render_table(samples.shifted(), all_layers=True, order="network", typed=RECORDED)

    assert run("report", saved, "--all", "--order", "network").out == expected


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "table"])
def test_formats(run, saved, name):
    """--format writes what the format makes of the report, and nothing else."""
    assert run("report", saved, "--format", name).out == FORMATS[name].render(samples.shifted())


@pytest.mark.parametrize("name", [each.name for each in FORMATS.values() if each.suffixes])
def test_files(run, saved, name):
    """--report writes a file whose suffix chooses the format; the same bytes each time."""
    suffix = FORMATS[name].suffixes[0]
    paths = [f"one{suffix}", f"two{suffix.upper()}"]

    ended = run("report", saved, "--report", paths[0], "--report", paths[1])

    assert ended.code == 0
    assert Path(paths[0]).read_text(encoding="utf-8") == FORMATS[name].render(samples.shifted())
    assert Path(paths[0]).read_bytes() == Path(paths[1]).read_bytes()


def test_stdin(run, saved, monkeypatch):
    """A report may come from another command, and JSON goes round without loss."""
    text = Path(saved).read_text(encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))

    assert run("report", "-", "--format", "json").out == text


def test_verdict_is_kept(run, saved):
    """The verdict is the one that the report was saved with."""
    run("check", saved, "--max-shift", 1.25, "--report", "judged.json")

    ended = run("report", "judged.json", "--format", "json")

    assert json.loads(ended.out)["verdict"]["status"] == "fail"
    assert ended.code == 0


@pytest.mark.parametrize("command", ["check", "report"])
def test_never_over_the_report_itself(run, saved, command):
    """The report that is read is not written over, by whichever name."""
    before = Path(saved).read_bytes()

    ended = run(command, saved, "--report", "./r.json")

    assert ended.code == 2
    assert "this file is the report that is read already" in ended.err
    assert Path(saved).read_bytes() == before


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[: len(text) // 2], "error: the report is not valid JSON: "),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "reads 1"),
        (lambda text: text.replace('"shift": 2.92', '"shift": NaN'), "NaN is not a JSON number"),
        (lambda text: text.replace('"shift": 2.92', '"shift": 0.2'), "must be at least 1, not 0.2"),
        (lambda text: text.replace('"severe"', '"fine"'), "a shift of 2.92 is severe"),
        (lambda text: text.replace('"shift": 2.92', '"shift": "bad"'), "must be a number"),
        (lambda text: text.encode("utf-16"), "it is not UTF-8 text"),
        (lambda text: "[" * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("command", ["check", "report"])
def test_bad_reports(run, saved, command, edit, message):
    """A report that is truncated, of another version, or edited into nonsense exits 2."""
    edited = edit(Path(saved).read_text(encoding="utf-8"))
    Path(saved).write_bytes(edited if isinstance(edited, bytes) else edited.encode())

    ended = run(command, saved)

    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "r.json" in ended.err


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["no/where.json"], "--report no/where.json: there is no folder"),
        (["a.json", "./a.json"], "--report ./a.json: this file is --report a.json already"),
        (["a.gif"], "a.gif: the suffix of a report chooses its format"),
        (["a"], "this path has no suffix"),
        (["folder.json"], "--report folder.json: this is a folder"),
    ],
)
def test_bad_places(run, saved, paths, message):
    """Where a report cannot go is said before anything is written."""
    Path("folder.json").mkdir()

    ended = run("report", saved, *(part for path in paths for part in ("--report", path)))

    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert sorted(each.name for each in Path().iterdir()) == ["folder.json", "r.json"]


def test_needs_no_torch(saved):
    """Neither torch nor numpy is imported."""
    code = (
        "import sys\nfrom varshift_cli.cli import main\n"
        "try: main(['report', 'r.json', '--format', 'json'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert from_json(done.stdout) == samples.shifted()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_disk(saved):
    """A full disk is told in one sentence, exit 2; a device is never replaced by a file."""
    Path("full.json").symlink_to("/dev/full")
    command = [sys.executable, "-m", "varshift_cli", "report", saved]

    to_file = subprocess.run(
        [*command, "--report", "full.json"], capture_output=True, text=True, check=False
    )
    with Path("/dev/full").open("w") as full:
        to_stdout = subprocess.run(command, stdout=full, stderr=-1, text=True, check=False)

    assert to_file.returncode == to_stdout.returncode == 2
    assert to_file.stderr == "error: full.json cannot be written: No space left on device\n"
    assert to_stdout.stderr == "error: stdout cannot be written: No space left on device\n"
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("--format", "html"), ""), (("--report", "r.html"), "--report r.html: ")],
)
def test_without_matplotlib(run, saved, monkeypatch, arguments, named):
    """Where figures cannot be drawn it is said which extra draws them, and nothing is written."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    ended = run("report", saved, *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"error: {named}the HTML report needs matplotlib for its figures, and it is not installed\n"
        "hint:  pip install 'varshift[report]'\n"
    )
    assert not Path("r.html").exists()


def test_one_report_of_several_without_matplotlib(run, pipeline, monkeypatch):
    """No scan begins if one of its reports could not be written; the message names that one."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    ended = run("scan", "model.pt", "--report", "a.json", "--report", "b.html")

    assert (ended.code, ended.out, pipeline.requests) == (2, "", [])
    assert ended.err.startswith("error: --report b.html: the HTML report needs matplotlib")
    assert not list(Path().glob("*.json"))
