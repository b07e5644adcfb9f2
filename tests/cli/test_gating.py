import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests import samples
from varshift_cli.records import Interval, Level
from varshift_cli.report import to_json

WORSE = "body.3.bn2"


def write(name, report):
    Path(name).write_text(to_json(report), encoding="utf-8")
    return name


def settings(text):
    Path("varshift.toml").write_text(text, encoding="utf-8")


def with_one_worse():
    """The sample with one layer far worse than it was."""
    report = samples.shifted()
    far = {"shift": 9.0, "shift_interval": Interval(8.0, 10.0), "level": Level.SEVERE}
    layers = [replace(each, **far) if each.name == WORSE else each for each in report.layers]
    return replace(report, layers=tuple(layers))


@pytest.fixture
def base():
    """The name of a saved baseline."""
    return write("base.json", samples.shifted())


def verdict(ended):
    return json.loads(ended.out)["verdict"]


@pytest.mark.parametrize("threshold", [(), ("--max-shift", "1.25")])
def test_baseline_of_a_scan(run, pipeline, base, threshold):
    """A scan passes while nothing got worse, however far off it is, and fails on what did."""
    same = run("scan", "model.pt", "--baseline", base, *threshold)
    pipeline.report = with_one_worse()
    worse = run("scan", "model.pt", "--baseline", base, *threshold, "--format", "json")

    assert same.code == 0
    assert "no layer got worse than in base.json" in same.out
    assert worse.code == 1
    assert (verdict(worse)["worst_layer"], verdict(worse)["baseline"]["worse"]) == (WORSE, [WORSE])


def test_baseline_of_a_check(run, base):
    """So does a check of a saved report."""
    write("now.json", with_one_worse())

    assert run("check", "base.json", "--baseline", base).code == 0
    ended = run("check", "now.json", "--baseline", base)
    assert ended.code == 1
    assert f"worst {WORSE}, shift 9.00 (8.00-10.00); 1 of 37 layers got worse" in ended.out


def test_baseline_of_the_file(run, pipeline, base):
    """The settings file may name the baseline; an empty name sets it aside."""
    settings(f'baseline = "{base}"\nmax-shift = 1.25\n')

    assert run("scan", "model.pt").code == 0
    assert run("scan", "model.pt", "--baseline", "").code == 1


@pytest.mark.parametrize("command", ["scan", "check"])
def test_the_baseline_is_not_written_over(run, pipeline, base, command):
    """What failed now would pass the next time; setting the baseline aside renews it."""
    pipeline.report = with_one_worse()
    Path("link.json").symlink_to(base)
    model = write("now.json", with_one_worse())
    before = Path(base).read_bytes()

    ended = run(command, model, "--baseline", base, "--report", "link.json")

    assert (ended.code, ended.out, pipeline.requests) == (2, "", [])
    assert ended.err.startswith("error: --report link.json: this file is the baseline already\n")
    assert Path(base).read_bytes() == before
    settings(f'baseline = "{base}"\n')
    assert run(command, model, "--report", base, "--max-shift", 99).code == 2
    assert run(command, model, "--baseline=", "--report", base, "--max-shift", 99).code == 0
    assert Path(base).read_bytes() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "error: there is no baseline base.json\nhint:  make it from a good state: varshift"),
        (b"{}", "error: baseline base.json: this is not a varshift report"),
        (b'{"schema_version": 2}', "error: baseline base.json: the report has schema_version 2"),
        (b"\xff", "error: baseline base.json: base.json is not a JSON report"),
    ],
)
@pytest.mark.parametrize("command", ["scan", "check"])
def test_unusable_baseline(run, pipeline, command, content, message):
    """A baseline that cannot be read is refused before the work begins, and named."""
    model = write("now.json", samples.shifted())
    if content is not None:
        Path("base.json").write_bytes(content)

    ended = run(command, model, "--baseline", "base.json")

    assert (ended.code, ended.out, pipeline.requests) == (2, "", [])
    assert ended.err.startswith(message)


def test_another_models_baseline(run):
    """A baseline of another network: which layers differ is said, the threshold judges the new."""
    report = samples.shifted()
    other = replace(report, layers=tuple(replace(e, name=f"net.{e.name}") for e in report.layers))
    write("other.json", other)
    write("now.json", report)

    gated = run("check", "now.json", "--baseline", "other.json", "--max-shift", 1.25)
    ungated = run("check", "now.json", "--baseline", "other.json")

    assert gated.code == 1
    assert "not in the baseline, judged by the threshold alone: body.0.bn1, body.0." in gated.out
    assert "in the baseline alone: net.body.0.bn1, " in gated.out
    assert ungated.code == 3
    assert "UNCHECKED  no layer was checked: 37 without threshold and baseline" in ungated.out


POLICY = """
max-shift = 1.5
[layers]
"body.*.bn3" = { max-shift = 3 }
[[suppress]]
layers = "body.1*.bn3"
reason = "the head's last blocks are cut off"
expires = 2999-12-31
"""


@pytest.mark.parametrize(("first", "arguments"), [("scan", ()), ("check", ())])
def test_policy_of_the_file(run, pipeline, first, arguments):
    """Thresholds by layer and suppressions come from the file, and the report tells of them."""
    settings(POLICY)
    model = write("now.json", samples.shifted())

    ended = run(first, model, *arguments)

    assert ended.code == 4  # body.0.bn3 is at 2.92 (2.84-3.00)
    assert "suppressed: body.1.bn3, body.10.bn3, body.11.bn3 (the head's last blocks are cut" in (
        " ".join(ended.out.split())
    )


def test_the_command_line_wins(run):
    """A threshold of the command line replaces the common one, not those of single layers."""
    settings(POLICY)
    write("now.json", samples.shifted())

    told = verdict(run("check", "now.json", "--max-shift", 1.01, "--format", "json"))

    assert (told["status"], told["threshold"], told["worst_layer"]) == ("fail", 1.01, "body.8.bn1")


def test_a_policy_in_every_format(run, base):
    """Each format shows a suppressed layer's reason."""
    settings('[[suppress]]\nlayers = "body.0.bn3"\nreason = "cut off"\n')
    from varshift_cli.report import FORMATS

    names = [f"r{each.suffixes[0]}" for each in FORMATS.values() if each.suffixes]
    files = [part for name in names for part in ("--report", name)]
    assert run("check", base, "--max-shift", 1.25, *files).code == 1

    for name in names:
        assert "cut off" in Path(name).read_text(encoding="utf-8"), name


def test_all_suppressed_exits_3(run, base):
    """Where all is set aside the command exits 3, and the report is shown all the same."""
    settings('[[suppress]]\nlayers = "*"\nreason = "not now"\n')

    ended = run("check", base, "--max-shift", 1.25)

    assert ended.code == 3
    assert "UNCHECKED  no layer was checked: 37 suppressed" in ended.out


@pytest.mark.parametrize(("least", "code"), [(0.85, 0), (0.92, 4), (0.97, 1)])
def test_least_accuracy(run, base, least, code):
    """Accuracy in eval() is held against its own threshold."""
    settings(f"min-accuracy = {least}\n")

    ended = run("check", base, "--max-shift", 5)

    assert ended.code == code
    assert ("accuracy in eval() is 92.0 % (90.2 % to 93.5 %)" in ended.out) is (code != 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-shift = 0.5\n", "--max-shift must be a ratio of at least 1, but is 0.5"),
        ('[layers]\n"a" = 0.5\n', "max-shift of layers 'a' must be a ratio of at least 1"),
        ("min-r2 = 80\n", "min-r2 must be a number of at most 1, but is 80"),
        ("min-metric = inf\n", "min-metric must be a finite number, but is inf"),
        ("min-accuracy = 97\n", "min-accuracy must be a share between 0 and 1, but is 97"),
    ],
)
@pytest.mark.parametrize("command", ["scan", "check"])
def test_thresholds_out_of_range(run, pipeline, base, command, text, message):
    """A threshold of the file that nothing can be compared with is refused before the work."""
    settings(text)

    ended = run(command, base)

    assert (ended.code, pipeline.requests) == (2, [])
    assert message in ended.err


def test_least_metric_needs_a_metric(run, pipeline):
    """A threshold for a figure that no scan will make is told before the work."""
    settings("min-metric = 0.9\n")

    ended = run("scan", "model.pt")

    assert (ended.code, pipeline.requests) == (2, [])
    assert "min-metric is set, but there is no --metric" in ended.err
    assert run("scan", "model.pt", "--metric", "m.py:auc").code == 3
    assert len(pipeline.requests) == 1


def test_samples_auto(run, pipeline):
    """--samples auto starts at 256 and hands the pipeline what tells that the gate is decided."""
    ended = run("scan", "model.pt", "--samples", "auto", "--max-shift", 1.25)
    assert ended.code == 1
    assert "auto" not in ended.out  # of the commands to run next none takes it
    assert run("scan", "model.pt", "--samples", "auto:100", "--max-shift", 1.25).code == 1

    assert [each.samples for each in pipeline.requests[:2]] == [256, 100]
    assert [most for _, most in pipeline.looks[:2]] == [65_536, 100]
    settled = pipeline.looks[0][0]
    assert settled(samples.shifted())


def test_samples_auto_of_the_file(run, pipeline):
    """The file's auto holds where there is a gate, and is passed over where there is none."""
    settings('samples = "auto"\n')

    assert run("scan", "model.pt", "--max-shift", 1.25).code == 1
    assert run("scan", "model.pt").code == 0
    assert run("fix", "model.pt", "--recalibrate").code == 0
    assert [len(pipeline.looks), pipeline.requests[1].samples] == [1, 1024]
    assert pipeline.requests[2].scan.samples == 1024


@pytest.mark.parametrize(
    ("command", "said", "message"),
    [
        (("scan",), "auto", "--samples auto draws until a gate is decided, and there is none"),
        (("fix", "--recalibrate"), "auto", "Invalid value for '--samples'"),
        (("scan",), "many", "--samples must be a number, auto or auto:N, but is many"),
        (("scan",), "auto:x", "--samples must be a number, auto or auto:N, but is auto:x"),
        (("scan",), "1", "--samples must be at least 2, but is 1"),
        (("scan",), "auto:1", "--samples must be at least 2, but is 1"),
    ],
)
def test_samples_that_mean_nothing(run, pipeline, command, said, message):
    """A number of samples that means nothing here is refused before the work."""
    ended = run(*command, "model.pt", "--samples", said)

    assert (ended.code, pipeline.requests) == (2, [])
    assert message in ended.err
