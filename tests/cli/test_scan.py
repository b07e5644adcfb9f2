import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests import samples
from varshift_cli.records import Interval, ScanRequest
from varshift_cli.report import from_json, render_table, to_json


def test_table(run, pipeline):
    """A scan writes the table to stdout, at width 100 where there is no terminal."""
    ended = run("scan", "model.pt", "--arch", "model.py:build")

    assert ended.code == 0
    assert ended.out == render_table(samples.shifted(), typed=("--arch", "model.py:build"))
    assert ended.err == "running code: model.py:build (--arch)\n"


def test_defaults(run, pipeline):
    """Without options the request holds the defaults."""
    run("scan", "model.pt")

    assert pipeline.requests == [ScanRequest(model="model.pt")]


def test_every_option_reaches_the_request(run, pipeline):
    """Every option that chooses model, data or measurement is passed on."""
    run(
        *("scan", "model.pt", "--arch", "m.py:f", "--arch-arg", "p=0.5", "--arch-arg", "q=1"),
        *("--key", "a.b", "--allow-pickle", "--data", "d.py:f", "--data-arg", "split=train"),
        *("--input", "x", "--label", "y", "--forward", "f.py:f", "--batch-size", 8),
        *("--noise", "m.py:N", "--noise", "pkg.mod:M"),
        *("--samples", 50, "--seed", 3, "--device", "cpu", "--channels"),
    )

    assert pipeline.requests == [
        ScanRequest(
            model="model.pt",
            arch="m.py:f",
            arch_args=("p=0.5", "q=1"),
            key="a.b",
            allow_pickle=True,
            data="d.py:f",
            data_args=("split=train",),
            input="x",
            label="y",
            forward="f.py:f",
            noise=("m.py:N", "pkg.mod:M"),
            batch_size=8,
            samples=50,
            seed=3,
            device="cpu",
            channels=True,
        )
    ]


def test_json(run, pipeline):
    """--format json writes the report as JSON, and nothing else, to stdout."""
    ended = run("scan", "model.pt", "--format", "json")

    assert ended.out == to_json(samples.shifted())


@pytest.mark.parametrize(
    ("threshold", "code", "status"), [(1.25, 1, "fail"), (2.95, 4, "inconclusive"), (5, 0, "pass")]
)
def test_gate(run, pipeline, threshold, code, status):
    """--max-shift turns the scan into a gate, with an exit code of its own for each verdict."""
    ended = run("scan", "model.pt", "--max-shift", threshold, "--format", "json")

    assert ended.code == code
    assert json.loads(ended.out)["verdict"]["status"] == status


def test_gate_from_file(run, pipeline):
    """A threshold in the settings file is a gate, and the command line wins over it."""
    Path("varshift.toml").write_text("max-shift = 1.25\n", encoding="utf-8")

    assert run("scan", "model.pt").code == 1
    assert run("scan", "model.pt", "--max-shift", 5).code == 0


def test_bad_threshold_costs_no_run(run, pipeline):
    """A threshold that makes no sense is refused before anything is measured."""
    ended = run("scan", "model.pt", "--max-shift", 0.5)

    assert ended.code == 2
    assert ended.err == (
        "error: --max-shift must be a ratio of at least 1, but is 0.5\n"
        "hint:  1.25 allows a mild shift; 1.05 hardly any\n"
    )
    assert pipeline.requests == []


def test_nothing_to_measure(run, pipeline):
    """Where no layer was measured the exit code is 3, and no report is written."""
    pipeline.report = replace(samples.shifted(), layers=())

    ended = run("scan", "model.pt", "--report", "r.json")

    assert (ended.code, ended.out) == (3, "")
    assert not Path("r.json").exists()


def test_reports(run, pipeline):
    """--report writes files beside the screen, each in the format of its suffix."""
    ended = run("scan", "model.pt", "--report", "r.json", "--report", "r.txt", "--max-shift", 1.25)

    report = from_json(Path("r.json").read_text(encoding="utf-8"))
    assert ended.code == 1
    assert report.verdict.threshold == 1.25
    assert Path("r.txt").read_text(encoding="utf-8") == render_table(report)
    assert sorted(Path().iterdir()) == [Path("r.json"), Path("r.txt")]


def test_report_replaces(run, pipeline):
    """A report of an earlier run is replaced, through a link too."""
    Path("old.json").write_text("old", encoding="utf-8")
    Path("link.json").symlink_to("old.json")

    run("scan", "model.pt", "--report", "link.json")

    assert Path("link.json").is_symlink()
    assert from_json(Path("old.json").read_text(encoding="utf-8")) == samples.shifted()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["r.gif"], "the suffix of a report chooses its format"),
        (["missing/r.json"], "there is no folder"),
        (["folder.json"], "this is a folder"),
        (["r.json", "./r.json"], "this file is --report r.json already"),
        (["model.json"], "this file is the checkpoint already"),
    ],
)
def test_report_places_are_checked_first(run, pipeline, paths, message):
    """A report that cannot be written is refused before anything is measured."""
    Path("folder.json").mkdir()

    ended = run("scan", "model.json", *[part for path in paths for part in ("--report", path)])

    assert ended.code == 2
    assert message in ended.err
    assert pipeline.requests == []


def test_report_that_cannot_be_finished(run, pipeline, monkeypatch):
    """When the disk is full the old report stays, no partial one is left, and it exits 2."""
    Path("r.json").write_text("old", encoding="utf-8")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    ended = run("scan", "model.pt", "--report", "r.json")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: r.json cannot be written: No space left on device\n"
    assert [each.name for each in Path().iterdir()] == ["r.json"]
    assert Path("r.json").read_text(encoding="utf-8") == "old"


def test_all_and_order(run, pipeline):
    """--all shows every layer, --order network in the order of execution."""
    ended = run("scan", "model.pt", "--all", "--order", "network")

    expected = render_table(samples.shifted(), all_layers=True, order="network")
    assert ended.out == expected


def test_settings_file(run, pipeline):
    """Settings fill what was not typed; who named the code that is run is said."""
    Path("varshift.toml").write_text(
        'arch = "m.py:f"\narch-arg = { p = 0.5, q = 1 }\ndata = "d.npz"\nsamples = 99\n',
        encoding="utf-8",
    )

    ended = run("scan", "model.pt", "--arch-arg", "q=2", "--samples", "10")

    request = ScanRequest(
        model="model.pt", arch="m.py:f", arch_args=("p=0.5", "q=2"), data="d.npz", samples=10
    )
    assert pipeline.requests == [request]
    assert ended.err == "running code: m.py:f (./varshift.toml)\n"


def test_train_data_from_the_settings_are_for_scans(run, pipeline):
    """A scan takes them from the file, as any option; a fix does not run them, nor says so."""
    settings = 'data = "d.npz"\ntrain-data = "t.py:f"\ntrain-batch-size = 16\n'
    Path("varshift.toml").write_text(settings, encoding="utf-8")

    scanned, fixed = run("scan", "model.pt"), run("fix", "model.pt")

    scan = ScanRequest("model.pt", data="d.npz", train_data="t.py:f", train_batch_size=16)
    assert pipeline.requests[0] == scan
    assert pipeline.requests[1].scan == replace(scan, train_data=None)
    assert scanned.err == "running code: t.py:f (./varshift.toml)\n"
    assert "t.py" not in fixed.err


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("d.py:f", "running code: d.py:f (--data)\n"),
        ("calib.npz", ""),
        ("C:\\calib.NPZ", ""),
        ("calib.csv", ""),
    ],
)
def test_only_code_is_announced(run, pipeline, data, told):
    """Data that are read and not run are not called code."""
    assert run("scan", "model.pt", "--data", data).err == told


def test_arguments_belong_to_what_they_are_for(run, pipeline):
    """Arguments in the file are for the file's own arch, not for one that was typed."""
    Path("varshift.toml").write_text('arch = "m.py:f"\narch-arg = ["p=0.5"]\n', encoding="utf-8")

    run("scan", "model.pt", "--arch", "other.py:g")

    assert pipeline.requests == [ScanRequest(model="model.pt", arch="other.py:g")]


def test_ignored_settings_are_mentioned(run, pipeline):
    """A second settings file that is not used is mentioned, unless quiet."""
    Path("varshift.toml").write_text("", encoding="utf-8")
    Path("pyproject.toml").write_text("[tool.varshift]\nseed = 1\n", encoding="utf-8")

    expected = "[tool.varshift] in ./pyproject.toml is ignored, as there is ./varshift.toml\n"
    assert run("scan", "model.pt").err == expected
    assert run("scan", "model.pt", "--quiet").err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample = 1", "there is no setting 'sample'"),
        ('format = "yaml"', "./varshift.toml: 'yaml' must be table or json"),
        ("samples = 1", "--samples must be at least 2, but is 1"),
        ("batch-size = 0", "--batch-size must be at least 1, but is 0"),
    ],
)
def test_bad_settings(run, pipeline, text, message):
    """What a settings file cannot mean is refused before anything is run."""
    Path("varshift.toml").write_text(text, encoding="utf-8")

    ended = run("scan", "model.pt")

    assert ended.code == 2
    assert message in ended.err
    assert pipeline.requests == []


def test_undecided_layers_do_not_pass(run, pipeline):
    """A shift without an interval leaves the gate undecided."""
    layer = replace(samples.shifted().layers[0], shift=1.0, shift_interval=None)
    pipeline.report = replace(samples.shifted(), layers=(layer,))

    assert run("scan", "model.pt", "--max-shift", 1.25).code == 4


def test_interval_decides(run, pipeline):
    """The gate compares the interval, not the point."""
    layer = replace(samples.shifted().layers[0], shift=1.3, shift_interval=Interval(1.2, 1.4))
    pipeline.report = replace(samples.shifted(), layers=(layer,))

    assert run("scan", "model.pt", "--max-shift", 1.25).code == 4


def test_no_attribute(run, pipeline):
    """--no-attribute, on the command line or in the file, asks for no passes of single dropouts."""
    run("scan", "model.pt", "--no-attribute")
    Path("varshift.toml").write_text("no-attribute = true\n", encoding="utf-8")
    run("scan", "model.pt")

    assert [request.attribute for request in pipeline.requests] == [False, False]
