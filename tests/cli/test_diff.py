import json

import torch

from tests import samples
from tests.report.goldens import compare
from tests.static.files import healthy
from varshift_cli.report import to_json


def written(folder):
    torch.save(healthy(), folder / "a.pt")
    torch.save(healthy(seed=2), folder / "b.pt")
    (folder / "a.json").write_text(to_json(samples.shifted()))


def test_checkpoints(run, tmp_path):
    """Two files are compared; the screen is the golden one."""
    written(tmp_path)

    ended = run("diff", "a.pt", "b.pt")

    assert (ended.code, ended.err) == (0, "")
    compare("diff-checkpoints.txt", ended.out)


def test_same_file(run, tmp_path):
    """A file is equal to itself."""
    written(tmp_path)

    assert "EQUAL" in run("diff", "a.pt", "a.pt").out


def test_reports(run, tmp_path):
    """Two reports are compared, and a report is the same as itself."""
    written(tmp_path)

    ended = run("diff", "a.json", "a.json")

    assert ended.code == 0
    assert "no change beyond noise" in ended.out
    assert ended.out.splitlines()[-1].startswith("next      varshift check a.json")


def test_json(run, tmp_path):
    """--format json says which kind it is."""
    written(tmp_path)

    files = json.loads(run("diff", "a.pt", "b.pt", "--format", "json").out)
    reports = json.loads(run("diff", "a.json", "a.json", "--format", "json").out)

    assert (files["kind"], reports["kind"]) == ("checkpoints", "reports")
    assert len(files["layers"]) == 3
    assert files["layers"][0]["variance_ratio"] > 0


def test_mixed(run, tmp_path):
    """A report and a checkpoint cannot be compared."""
    written(tmp_path)

    ended = run("diff", "a.json", "b.pt")

    assert ended.code == 2
    assert "a.json is a report and b.pt is none" in ended.err


def test_missing(run, tmp_path):
    """A missing file is named."""
    written(tmp_path)

    ended = run("diff", "a.pt", "c.pt")

    assert (ended.code, ended.out) == (2, "")
    assert "no such file: c.pt" in ended.err
