import re
from dataclasses import replace

import pytest
from rich.text import Text

from tests import samples
from tests.report.goldens import compare
from varshift_cli.gate import judge, judge_report
from varshift_cli.records import (
    AttributionShare,
    Case,
    DropoutLink,
    Effect,
    Factors,
    Finding,
    FindingLevel,
    Interval,
    Level,
    RegimeScores,
    Remedy,
    Status,
)
from varshift_cli.report import FORMATS, Style, render_table

ON = "(on these 1,000 samples)"


def gated(report, threshold):
    return replace(report, verdict=judge(report.layers, threshold, report.findings))


def widest(screen):
    return max(Text(line).cell_len for line in screen.splitlines())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_screen(width):
    """The screen of a shifted network, at three widths, to the letter."""
    compare(f"scan-{width}.txt", render_table(samples.shifted(), Style(width)))


def test_everything():
    """Every layer in execution order, on a terminal without block characters, to the letter."""
    style = Style(100, fold=True, ascii_only=True)

    screen = render_table(samples.shifted(), style, all_layers=True, order="network")

    compare("scan-all.txt", screen)


def test_healthy():
    """A network without a shift is told plainly to be fine, with what was checked."""
    compare("scan-fine.txt", render_table(samples.healthy()))


def test_awkward():
    """Unknown figures are said to be unknown; names are shown whole and cannot act."""
    compare("scan-awkward.txt", render_table(samples.awkward(), all_layers=True))


def test_awkward_terminal():
    """On a terminal what is too long is folded, not cut."""
    style = Style(80, fold=True)

    screen = render_table(samples.awkward(), style, all_layers=True)

    compare("scan-awkward-80.txt", screen)


def test_colour():
    """Levels have their colours; without them the text is the same."""
    screen = render_table(samples.shifted(), Style(100, colour=True))

    assert "\x1b[1;31m2.92\x1b[0m" in screen
    assert "\x1b[38;5;208m1.34\x1b[0m" in screen
    assert re.sub(r"\x1b\[[0-9;]*m", "", screen) == render_table(samples.shifted(), Style(100))


def test_environment_does_not_matter(monkeypatch):
    """A screen depends on its report and style alone, not on the terminal it may be shown on."""
    expected = render_table(samples.shifted(), Style(100, colour=True))
    for name, value in {"NO_COLOR": "1", "COLUMNS": "40", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    assert render_table(samples.shifted(), Style(100, colour=True)) == expected


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("all_layers", [False, True])
def test_fits(width, all_layers):
    """With names of usual length every line fits."""
    assert widest(render_table(samples.shifted(), Style(width), all_layers=all_layers)) <= width


def test_names_are_never_cut():
    """In files and pipes a name of any length is whole, on one line."""
    name = "a." * 250 + "bn"
    report = samples.shifted()
    report = replace(report, layers=(replace(report.layers[2], name=name), *report.layers[3:]))

    rows = [line for line in render_table(report).splitlines() if line.startswith(name)]

    assert len(rows) == 1
    assert "2.92" in rows[0]
    assert "model.py:31" in rows[0]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_terminal_is_never_overrun_by_names(width):
    """On a terminal a long name folds into its column, and nothing of it is lost."""
    name = "x" * 500
    report = samples.shifted()
    report = replace(report, layers=(replace(report.layers[2], name=name), *report.layers[3:]))

    screen = render_table(report, Style(width, fold=True))

    assert screen.count("x") >= 500
    table = screen.partition("Why")[0].splitlines()
    assert max(len(line) for line in table) <= max(width, 80)


def test_no_name_can_act():
    """No control character and no markup of a name reaches the screen."""
    screen = render_table(samples.awkward(), Style(100, fold=True), all_layers=True)

    assert {each for each in screen if not each.isprintable()} == {"\n"}
    assert "[bold]" in screen.replace("\n", "")


def test_rest_is_counted():
    """What is shown and what is counted as more are all layers, level by level."""
    report = samples.shifted()
    screen = render_table(report)

    shown = len(re.findall(r"^body\S+ ", screen, re.MULTILINE))
    counts = {level: int(n) for n, level in re.findall(r"(\d+) (strong|mild|fine|severe)", screen)}
    more = int(re.search(r"(\d+) more:", screen)[1])

    assert shown + more == len(report.layers)
    assert sum(counts.values()) == more
    assert counts["fine"] == sum(each.level is Level.FINE for each in report.layers)


def test_worst_first():
    """Layers come by shift, unless the order of the network is asked for."""
    by_shift = render_table(samples.shifted(), all_layers=True)
    by_network = render_table(samples.shifted(), all_layers=True, order="network")

    def names(screen):
        return re.findall(r"^(body\.\S+|bn) ", screen, re.MULTILINE)

    assert names(by_network) == [each.name for each in samples.shifted().layers]
    shifts = {each.name: each.shift for each in samples.shifted().layers}
    assert [shifts[name] for name in names(by_shift)] == sorted(shifts.values(), reverse=True)


@pytest.mark.parametrize(
    ("threshold", "line"),
    [
        (1.25, "FAIL      worst body.0.bn3, shift 2.92 (2.84-3.00); 12 of 37 layers above 1.25"),
        (
            2.95,
            "INCONCLUSIVE  body.0.bn3, shift 2.92 (2.84-3.00): more --samples decide about 2.95",
        ),
        (5, "PASS      no layer above 5; worst body.0.bn3, shift 2.92 (2.84-3.00)"),
        (None, "SEVERE    worst body.0.bn3, shift 2.92 (2.84-3.00); 11 of 37 layers above 2"),
    ],
)
def test_verdict(threshold, line):
    """The verdict is one line: the answer, the layer that decides, and how many are like it."""
    assert f"\n{line}\n" in render_table(gated(samples.shifted(), threshold))


def test_verdict_on_broken_buffers():
    """Buffers that are not finite are named as what fails the gate."""
    screen = render_table(gated(samples.awkward(), 1.25))

    assert "\nFAIL      the running statistics of aux.bn are not finite\n" in screen


def test_cancelling_causes():
    """Where two factors cancel both are named."""
    row = next(
        line
        for line in render_table(samples.shifted(), all_layers=True).splitlines()
        if line.startswith("bn ")
    )

    assert "inherited 0.51  x dropout 1.83, cancelling" in row


def test_inherited():
    """An inherited shift says how many layers above are off, over any number of steps."""
    screen = render_table(samples.shifted(), all_layers=True)

    assert re.search(r"^body\.3\.bn1 .* inherited 0\.94  3 layers upstream$", screen, re.MULTILINE)


def test_many_dropouts():
    """Of several dropouts the ones with the largest share are named, the rest counted."""
    report = samples.shifted()
    links = tuple(DropoutLink(each.name, Case.THROUGH_WEIGHTS) for each in report.dropouts[:4])
    shares = tuple(
        AttributionShare(each.name, share)
        for each, share in zip(report.dropouts, (0.1, 0.2, -0.9, 0.3), strict=False)
    )
    layer = replace(report.layers[2], dropouts=links, attribution=shares)

    screen = render_table(replace(report, layers=(layer,)))

    names = re.findall(r"body\.\d+\.drop model\.py:31|and \d more", screen)
    assert names == ["body.2.drop model.py:31", "body.3.drop model.py:31", "and 2 more"]


def test_dropout_out_of_sight():
    """A dropout factor without a dropout that reaches the layer is laid to one further up."""
    layer = replace(samples.shifted().layers[2], dropouts=())

    assert "dropout further up" in render_table(replace(samples.shifted(), layers=(layer,)))


def test_unknown_factor():
    """A cause whose factor is unknown is named without a number."""
    layer = replace(samples.shifted().layers[2], factors=Factors(None, None, None, None))

    row = render_table(replace(samples.shifted(), layers=(layer,))).splitlines()[4]

    assert re.search(r"dropout  +body\.0\.drop", row)


@pytest.mark.parametrize(
    ("effect", "lines"),
    [
        (None, []),
        (Effect(None, None, None, None, None), []),
        (
            Effect(0.094, 0.211, 0.3, None, None),
            [
                "Effect    recalibration changes 9.4 % of the predictions, mean KL 0.21 nats",
                f"          whether for the better, only labels tell {ON}",
            ],
        ),
        (
            Effect(0.0, 0.0, None, RegimeScores(0.5, 0.5, None), None),
            [
                f"Effect    accuracy 50.0 % in eval() as it is, 50.0 % recalibrated {ON}",
                "          recalibration changes no prediction",
            ],
        ),
    ],
)
def test_effect(effect, lines):
    """The effect is told in the user's own figure where there are labels, else as a change."""
    screen = render_table(replace(samples.shifted(), effect=effect)).splitlines()

    found = [i for i, line in enumerate(screen) if line.startswith("Effect")]

    assert screen[found[0] : found[0] + len(lines)] == lines if lines else found == []


def test_next_commands():
    """The commands to run next hold the user's own file and options, quoted for a shell."""
    report = samples.shifted()
    report = replace(report, checkpoint=replace(report.checkpoint, path="my nets/a.pt"))

    screen = render_table(report, typed=("--arch", "m.py:Net", "--data", "d 1.npz"))

    command = "varshift fix 'my nets/a.pt' --arch m.py:Net --data 'd 1.npz'"
    assert f"next      {command}\n" in screen


MAX_SHIFT = "--max-shift 1.25    in CI, so that it stays so"
BASELINE = "--report base.json    later scans with --baseline base.json, in CI"


@pytest.mark.parametrize(
    ("shift", "interval", "advised"),
    [
        (1.02, Interval(1.0, 1.04), MAX_SHIFT),
        (1.15, Interval(1.08, 1.25), MAX_SHIFT),
        (1.15, Interval(1.0, 1.34), BASELINE),
        (1.43, Interval(1.31, 1.57), BASELINE),
        (1.02, None, BASELINE),
        (1.15, None, None),
    ],
)
def test_the_gate_advised_passes_today(shift, interval, advised):
    """The usual threshold, or the report itself as a baseline; none that would not pass."""
    off = samples.healthy()
    level = Level.of(shift)
    layer = replace(off.layers[0], shift=shift, shift_interval=interval, level=level)
    report = replace(off, layers=(layer,))

    screen = render_table(report, Style(160))

    gates = {
        MAX_SHIFT: judge(report.layers, 1.25, ()).status,
        BASELINE: judge_report(report, baseline=report).verdict.status,
    }
    assert [each for each in gates if f"varshift scan twin.pt {each}\n" in screen] == (
        [] if advised is None else [advised]
    )
    if advised is None:
        assert "varshift scan" not in screen
        assert Status.PASS not in gates.values()
    else:
        assert gates[advised] is Status.PASS


def test_no_gate_where_nothing_was_measured():
    """Without a shift no gate passes, and none is advised."""
    layer = replace(samples.healthy().layers[0], shift=None, shift_interval=None, level=None)

    assert "next" not in render_table(replace(samples.healthy(), layers=(layer,)))


def test_other_data_are_not_repaired_by():
    """Where the training data told that these are others, the repair is by those, not by these."""
    remedies = {"VS501": (Remedy("Adapt the statistics", "varshift fix model.pt"),)}
    found = Finding("VS501", FindingLevel.ERROR, ("body.0.bn1",), "others")
    guessed = replace(samples.shifted(), findings=(found,), remedies=remedies)
    told = replace(found, evidence={"stale_on_train_data": {"body.0.bn1": 1.0}})

    screen = render_table(replace(guessed, findings=(told,)))

    assert "next      scan and fix with the data of training as --data\n" in screen
    assert "these are others: no repair of the statistics is due by them\n" in screen
    assert "varshift fix" not in screen
    assert "varshift fix model.pt" in render_table(guessed)


@pytest.mark.parametrize(
    ("unknown", "line"),
    [
        ({}, "next      give --data with labels      they tell whether a repair is for the better"),
        (
            {"effect.accuracy": "the outputs are no class scores"},
            "next      varshift fix model.pt --metric file.py:f    your own figure decides",
        ),
    ],
)
def test_a_metric_needs_labels(unknown, line):
    """Where a repair may do harm, labels are asked for first, and a metric where there are some."""
    effect = Effect(0.094, 0.211, None, None, None, adapted=True)
    screen = render_table(replace(samples.shifted(), effect=effect, unknown=unknown))

    assert re.sub(" +", " ", line) in re.sub(" +", " ", screen)
    assert ("--metric" in screen) is bool(unknown)


@pytest.mark.parametrize(
    ("code", "rivals", "lines"),
    [
        ("VS301", ("a", "b"), ["or a", "or b"]),
        ("VS210", ("a", "b", "c"), ["either a", "or b", "or c"]),
        ("VS210", ("a",), ["perhaps a"]),
        ("VS206", ("a",), ["perhaps a"]),
    ],
)
def test_the_first_rival(code, rivals, lines):
    """Where the message names no cause, the list of causes does not begin with *or*."""
    found = Finding(code, FindingLevel.WARNING, ("body.0.bn1",), "as found", rivals=rivals)
    report = replace(samples.shifted(), findings=(found,))

    screen = [line.strip() for line in render_table(report).splitlines()]
    comment = FORMATS["markdown"].render(report)

    index = next(i for i, line in enumerate(screen) if line.endswith(f"{code} as found"))
    assert screen[index + 1 : index + 1 + len(lines)] == lines
    assert f"as found\n{''.join(f'  - {each}{chr(10)}' for each in lines)}" in comment


@pytest.mark.parametrize("bare", [False, True])
def test_no_dropout_where_there_is_none(bare):
    """What clears BatchNorm speaks of dropout only where the network has some."""
    report = samples.healthy()
    scores = RegimeScores(0.6, 0.6, 0.6)
    effect = Effect(0.0, 0.0, None, scores, None, train_gain=Interval(-0.01, 0.01))
    dropouts = () if bare else samples.shifted().dropouts
    report = replace(report, effect=effect, dropouts=dropouts)

    screen = " ".join(render_table(report).split())

    train = "in train()" if bare else "with dropout on"
    assert f"BN not guilty: every shift is fine, and {train} it is no better than in eval()" in (
        screen
    )
    assert ("dropout on" in screen) is not bare


def test_next_without_a_file():
    """A model that was in memory has no file to run commands on."""
    report = samples.shifted()
    report = replace(report, checkpoint=replace(report.checkpoint, path=None, container=None))

    screen = render_table(report)

    assert "next" not in screen
    assert screen.startswith("model in memory")


def test_repaired_buffers_are_not_repaired_again():
    """Where no remedy of any finding is a fix, none is proposed."""
    screen = render_table(replace(samples.shifted(), remedies={}))

    assert "varshift fix" not in screen
    assert "varshift explain VS101" in screen


@pytest.mark.parametrize(("code", "cleared"), [("VS210", False), ("VS211", True), ("VS101", True)])
def test_buffers_are_not_called_fresh_beside_a_finding_on_them(code, cleared):
    """Factors of variances near 1 clear no buffers whose means or channels were found to be off."""
    found = Finding(code, FindingLevel.NOTE, ("body.0.bn1",), "as found")
    screen = render_table(replace(samples.shifted(), findings=(found,)))

    assert ("buffers are fresh" in screen) is cleared


def test_five_hundred_layers():
    """A report of 500 layers is rendered whole, each on one line."""
    layers = tuple(replace(samples.shifted().layers[2], name=f"layer{i}.bn") for i in range(500))

    screen = render_table(replace(samples.shifted(), layers=layers), all_layers=True)

    assert len(re.findall(r"^layer\d+\.bn", screen, re.MULTILINE)) == 500


@pytest.mark.parametrize("style", [Style(), Style(80, fold=True, colour=True)])
def test_hostile_names(style):
    """No name moves the cursor, breaks a line, or speaks to the runner of a job from its log."""
    screen = render_table(samples.hostile(), style, all_layers=True)
    bare = re.sub(r"\x1b\[[\d;]*m", "", screen)

    assert all(each.isprintable() or each == "\n" for each in bare)
    assert "##[" not in bare
    if not style.fold:  # terminals alone break words
        assert not [line for line in bare.splitlines() if line.lstrip().startswith("::")]
        assert f"{'x' * 500}  2.92" in bare
