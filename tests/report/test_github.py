import re
from dataclasses import replace

import pytest

from tests import samples
from tests.report.goldens import compare
from varshift_cli.gate import judge_report
from varshift_cli.records import Finding, FindingLevel
from varshift_cli.report import FORMATS
from varshift_cli.report.text import visible

render = FORMATS["github"].render

COMMAND = re.compile(r"::(error|warning|notice) ((?:[a-z]+=[^,:]*,?)+)::(.*)")


def unescaped(text, *, of_property):
    """As GitHub's runner reads a value: percent signs last."""
    escapes = [("%0D", "\r"), ("%0A", "\n")]
    escapes += [("%3A", ":"), ("%2C", ",")] if of_property else []
    for escape, character in [*escapes, ("%25", "%")]:
        text = text.replace(escape, character)
    return text


def commands_of(text):
    """Each line as kind, properties and message; a line that is no command fails."""
    found = []
    for line in text.splitlines():
        kind, properties, message = COMMAND.fullmatch(line).groups()
        pairs = (each.split("=", 1) for each in properties.split(","))
        values = {name: unescaped(value, of_property=True) for name, value in pairs}
        found.append((kind, values, unescaped(message, of_property=False)))
    return found


@pytest.mark.parametrize("name", ["failing", "shifted", "awkward", "undecided", "known", "passing"])
def test_letters(name):
    """The workflow commands, to the letter."""
    compare(f"{name}.github.txt", render(samples.EVERYTHING[name]))


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_every_line_is_one_command(name):
    """Whatever the names hold, each line is one annotation and there are few of them."""
    commands = commands_of(render(samples.EVERYTHING[name]))

    for kind in ("error", "warning", "notice"):
        assert sum(each[0] == kind for each in commands) <= 10
    assert all(set(values) <= {"file", "line", "title"} for _, values, _ in commands)


def test_hostile_names_come_through():
    """What the runner reads back is the name itself, with nothing lost to the escaping."""
    commands = commands_of(render(samples.hostile()))
    files = {values.get("file") for kind, values, _ in commands if kind == "error"}

    percent = samples.HOSTILE[6]
    assert {visible(name) for name in (percent, samples.HOSTILE[2])} <= files
    assert any(message.startswith(f"{visible(percent)}: shift") for _, _, message in commands)


@pytest.mark.parametrize(
    ("name", "kind", "title"),
    [
        ("failing", "error", "varshift FAIL"),
        ("undecided", "warning", "varshift INCONCLUSIVE"),
        ("passing", "notice", "varshift PASS"),
        ("shifted", "warning", "varshift SEVERE"),
        ("healthy", "notice", "varshift FINE"),
    ],
)
def test_verdict(name, kind, title):
    """The verdict is always there, as loud as it is bad; only a failed gate is an error."""
    commands = commands_of(render(samples.EVERYTHING[name]))

    assert (kind, title) in [(each, values["title"]) for each, values, _ in commands]
    assert any(each == "error" for each, _, _ in commands) == (name == "failing")


def test_nothing_that_passes_is_an_error():
    """A finding as loud as an error is a warning where the gate lets it pass, else an error."""
    found = Finding("VS102", FindingLevel.ERROR, (), "about it")
    report = replace(samples.shifted(), findings=(found,))

    passed, failed = (
        [kind for kind, _, message in commands if message.startswith("about")]
        for commands in (
            commands_of(render(judge_report(report, max_shift=5))),
            commands_of(render(judge_report(report, max_shift=1.25))),
        )
    )

    assert passed == ["warning"]
    assert failed == ["error"]


def test_one_annotation_for_one_line():
    """Layers that fail for one cause at one line are one annotation, which counts them."""
    (kind, values, message) = commands_of(render(samples.failing()))[1]

    assert (kind, values["file"], values["line"]) == ("error", "model.py", "31")
    assert message.startswith("12 layers, worst body.0.bn3: shift 2.92 (2.84-3.00), dropout 0.34")
    assert "and 7 more" in message


def test_many_places():
    """More places than GitHub shows are counted in the last annotation."""
    report = samples.failing()
    dropouts = tuple(
        replace(each, location=f"m.py:{index}") for index, each in enumerate(report.dropouts)
    )
    commands = commands_of(render(replace(report, dropouts=dropouts)))

    errors = [each for each in commands if each[0] == "error"]
    assert len(errors) == 10
    assert errors[-1][2] == "4 more, in the full report"


def test_no_place():
    """A model in memory has no file to point at."""
    (first, *_) = commands_of(render(samples.EVERYTHING["in-memory"]))

    assert set(first[1]) == {"title"}


def named(*findings, cause):
    """The shifted network with this as the cause of its first block's last layer, and findings."""
    report = samples.shifted()
    layer = replace(report.layers[2], cause=cause)
    layer = replace(layer, factors=replace(layer.factors, dropout=0.41, inherited=0.13))
    found = tuple(
        Finding(code, FindingLevel.ERROR, (layer.name,), f"about {layer.name}") for code in findings
    )
    return replace(report, layers=(*report.layers[:2], layer), findings=found)


@pytest.mark.parametrize(
    ("cause", "title", "figures"),
    [
        ("inherited", "VS110 inherited from BatchNorm layers upstream", "inherited 0.13, fed by"),
        ("dropout", "VS102 dropout before BatchNorm through weights", "dropout 0.41, fed by"),
        ("stale x dropout", "VS210 stale buffers", "x dropout 0.41, cancelling"),
    ],
)
def test_title_and_message_are_of_one_finding(cause, title, figures):
    """Of several findings on a layer, the title is of the one whose factor the message gives."""
    commands = commands_of(render(named("VS102", "VS210", "VS110", cause=cause)))

    (of_layer,) = [each for each in commands if each[2].startswith("body.0.bn3: shift")]
    assert of_layer[1]["title"] == f"varshift {title}"
    assert figures in of_layer[2]
    assert of_layer[2].endswith(f"(varshift explain {title[:5]})")


def test_no_title_for_a_factor_that_no_finding_is_about():
    """A layer whose cause no finding explains is told without a code; the finding by itself."""
    commands = commands_of(render(named("VS502", cause="dropout")))

    titles = {message.partition(":")[0]: values["title"] for _, values, message in commands}
    assert titles["body.0.bn3"] == "varshift"
    assert titles["about body.0.bn3"] == "varshift VS502 augmentation or mixup in training only"
