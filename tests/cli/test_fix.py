import json
from pathlib import Path

import pytest

from tests import samples
from varshift_cli.errors import FixDeclinedError
from varshift_cli.records import FixRequest, ScanRequest
from varshift_cli.report import fix_to_json, render_fix


def test_screen(run, pipeline):
    """A fix shows what was done, and the next command with the options that were typed."""
    ended = run("fix", "model.pt", "--recalibrate", "--data", "calib.npz")

    assert ended.code == 0
    assert ended.out == render_fix(samples.fix_record(), typed=("--data", "calib.npz"))


def test_every_option_reaches_the_request(run, pipeline):
    """Every option of fix is passed on."""
    run(
        *("fix", "model.pt", "--recalibrate", "--output", "o.pt", "--overwrite", "--dry-run"),
        *("--force", "--include-frozen", "--holdout", "h.npz", "--seed", 5, "--in-place"),
        *("--metric", "m.py:f", "--train-batch-size", 32),
    )

    assert pipeline.requests == [
        FixRequest(
            scan=ScanRequest(model="model.pt", seed=5, metric="m.py:f", train_batch_size=32),
            method="recalibrate",
            output="o.pt",
            overwrite=True,
            dry_run=True,
            force=True,
            include_frozen=True,
            holdout="h.npz",
            in_place=True,
        )
    ]


def test_holdout_from_file(run, pipeline):
    """Held-out data may be named by the settings file."""
    Path("varshift.toml").write_text('holdout = "h.npz"\n', encoding="utf-8")

    run("fix", "model.pt", "--recalibrate")

    assert pipeline.requests[0].holdout == "h.npz"


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ((), "auto"),
        (("--auto",), "auto"),
        (("--recalibrate",), "recalibrate"),
        (("--correct",), "correct"),
        (("--revert",), "revert"),
    ],
)
def test_method(run, pipeline, options, method):
    """The method that is named is asked for; without one, the choice is left to varshift."""
    assert run("fix", "model.pt", *options).code == 0

    assert pipeline.requests[0].method == method


def test_one_method_only(run, pipeline):
    """Two methods at once are refused before anything is opened."""
    ended = run("fix", "model.pt", "--correct", "--recalibrate")

    assert ended.code == 2
    assert "--recalibrate and --correct exclude each other" in ended.err
    assert pipeline.requests == []


def test_json(run, pipeline):
    """--format json writes the record."""
    ended = run("fix", "model.pt", "--recalibrate", "--format", "json")

    assert ended.out == fix_to_json(samples.fix_record())


def test_declined(run, pipeline):
    """A repair that is declined exits 5 and says why."""
    pipeline.error = FixDeclinedError("the residual is 0.1", hint="more --samples")

    ended = run("fix", "model.pt", "--recalibrate")

    assert (ended.code, ended.out) == (5, "")
    assert ended.err == "error: the residual is 0.1\nhint:  more --samples\n"


def test_report_files(run, pipeline, tmp_path):
    """--report writes what was done as JSON or as the screen; other formats are none of a fix's."""
    ended = run("fix", "model.pt", "--report", "fix.json", "--report", "fix.txt", "-q")

    assert ended.code == 0
    assert json.loads((tmp_path / "fix.json").read_text())["method"] == "recalibrate"
    assert (tmp_path / "fix.txt").read_text("utf-8") == ended.out

    refused = run("fix", "model.pt", "--report", "fix.html")
    assert refused.code == 2
    assert "known suffixes: .txt (table), .json (json)" in refused.err
