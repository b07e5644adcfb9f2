import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import samples
from varshift_cli.gate import judge
from varshift_cli.report import from_json, render_table, to_json


@pytest.fixture
def saved():
    """The name of a saved report."""
    Path("r.json").write_text(to_json(samples.shifted()), encoding="utf-8")
    return "r.json"


@pytest.mark.parametrize(("threshold", "code"), [(1.25, 1), (2.95, 4), (5, 0)])
def test_exit_codes(run, saved, threshold, code):
    """A saved report is judged as the scan itself would be."""
    assert run("check", saved, "--max-shift", threshold).code == code


def test_screen(run, saved):
    """The screen is that of the scan, with the new verdict."""
    report = samples.shifted()
    verdict = judge(report.layers, 1.25)

    ended = run("check", saved, "--max-shift", 1.25)

    expected = render_table(from_json(to_json(report).replace("not_gated", "fail")))
    assert ended.out.splitlines()[:5] == expected.splitlines()[:5]
    assert f"FAIL      worst {verdict.worst_layer}" in ended.out


def test_json(run, saved):
    """--format json is the report with the new verdict."""
    verdict = json.loads(run("check", saved, "--max-shift", 1.25, "--format", "json").out)[
        "verdict"
    ]

    assert verdict == {
        "status": "fail",
        "threshold": 1.25,
        "worst_layer": "body.0.bn3",
        "worst_shift": 2.92,
    }


def test_threshold_of_the_report(run, saved):
    """Without a threshold of its own the check uses the one the report was made with."""
    text = Path(saved).read_text(encoding="utf-8")
    Path(saved).write_text(text.replace('"threshold": null', '"threshold": 5'), encoding="utf-8")

    assert run("check", saved).code == 0


def test_threshold_of_the_file(run, saved):
    """The settings file may hold the threshold."""
    Path("varshift.toml").write_text("max-shift = 1.25\n", encoding="utf-8")

    assert run("check", saved).code == 1


def test_no_threshold(run, saved):
    """A check against nothing is refused."""
    ended = run("check", saved)

    assert ended.code == 2
    assert "no threshold was given" in ended.err


def test_stdin(run, saved, monkeypatch):
    """A report may come from another command."""
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(saved).read_text(encoding="utf-8")))

    assert run("check", "-", "--max-shift", 1.25).code == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "error: there is no report r.json\n"),
        (b"\xff\xfe", "error: r.json is not a JSON report: it is not UTF-8 text\n"),
        (b"", "error: the report is not valid JSON: "),
        (b"{}", "error: this is not a varshift report"),
    ],
)
def test_unreadable(run, content, message):
    """What cannot be read as a report exits 2 with one clear message."""
    if content is not None:
        Path("r.json").write_bytes(content)

    ended = run("check", "r.json", "--max-shift", 1.25)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(message)


def test_folder(run):
    """A folder is no report."""
    Path("r.json").mkdir()

    assert "r.json cannot be read: Is a directory" in run("check", "r.json").err


def test_needs_no_torch(saved):
    """The check neither imports torch nor numpy."""
    code = (
        "import sys\nfrom varshift_cli.cli import main\n"
        "try: main(['check', 'r.json', '--max-shift', '5'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


NOT_FOR_CHECK = {
    *(f"varshift_cli.cli.{name}" for name in ("scan", "fix", "inspect", "diff", "settings")),
    *(f"varshift_cli.gate.{name}" for name in ("judging", "baseline", "suppressions", "shares")),
    *(f"varshift_cli.records.{name}" for name in ("repairs", "diff", "inspection", "lint")),
    *(f"varshift_cli.report.{name}" for name in ("fix", "markdown", "sarif", "html")),
    *("varshift_cli.causes", "varshift_cli.loading", "torch", "numpy", "rich.console"),
}


def test_it_loads_no_more_than_it_needs(saved):
    """A check answers at once: nothing is imported that it makes no use of."""
    code = (
        f"import sys\nfrom varshift_cli.cli import main\nsys.argv[1:] = ['check', {saved!r}, "
        "'--max-shift', '5']\ntry: main()\n"
        f"except SystemExit: sys.stderr.write(' '.join({NOT_FOR_CHECK} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert "PASS" in done.stdout
