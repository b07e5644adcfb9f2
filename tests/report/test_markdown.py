from dataclasses import replace

import html5lib
import pytest
from markdown_it import MarkdownIt

from tests import samples
from tests.report.goldens import compare
from varshift_cli.records import Remedy, Skipped
from varshift_cli.report import FORMATS
from varshift_cli.report.markdown import LIMIT
from varshift_cli.report.text import layer_name

render = FORMATS["markdown"].render

GITHUB = MarkdownIt("commonmark", {"html": True}).enable("table")
"""What GitHub's Markdown is, as far as this page uses it: CommonMark, tables and raw HTML."""

OURS = {"html", "head", "body", "h3", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
OURS |= {"ul", "li", "em", "code", "details", "summary"}


def tree_of(text):
    return html5lib.parse(GITHUB.render(text), namespaceHTMLElements=False)


def cells_of(table):
    return [["".join(td.itertext()) for td in row.iter("td")] for row in table.iter("tr")][1:]


@pytest.mark.parametrize("name", ["failing", "awkward", "known", "passing"])
def test_letters(name):
    """The comment, to the letter."""
    compare(f"{name}.md", render(samples.EVERYTHING[name]))


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_only_our_markup(name):
    """Rendered, the page has no element but ours, whatever the names hold: no link, no image."""
    tree = tree_of(render(samples.EVERYTHING[name]))

    assert {each.tag for each in tree.iter() if isinstance(each.tag, str)} <= OURS


def test_hostile_names_are_shown_as_they_are():
    """A hostile name appears in the table as text, whole up to a length, each in its own row."""
    tables = list(tree_of(render(samples.hostile())).iter("table"))
    names = [row[0] for row in cells_of(tables[0])]

    shown = [layer_name(name) for name in samples.HOSTILE]
    assert names == [
        name if len(name) <= 100 else f"{name[:47]} ... {name[-47:]}" for name in shown
    ]


def test_no_mention():
    """Nobody is mentioned, no issue linked: outside of code, @ and # are followed by a gap."""
    tree = tree_of(render(samples.hostile()))
    for each in list(tree.iter("code")):
        each.text = ""
    text = "".join(tree.itertext())

    assert "@octocat" not in text
    assert "#1" not in text
    assert "@\u200boctocat" in text


def test_large():
    """Five hundred layers fit a comment, the worst first, and all their rows if there is room."""
    text = render(samples.large())

    assert len(text) <= LIMIT
    assert len(text.encode("utf-16-le")) // 2 <= LIMIT
    rows = cells_of(list(tree_of(text).iter("table"))[2])
    assert len(rows) == 500
    assert rows[3][:4] == ["stage.3.body.1.bn1", "1.02", "1.00-1.05", "0.99"]


def test_too_large():
    """What a comment cannot take is left out at the end of a table, and counted."""
    report = samples.large(3000)
    report = replace(
        report, skipped=tuple(Skipped(f"aux.{index}", "x" * 900) for index in range(99))
    )
    text = render(report)

    assert 0.9 * LIMIT < len(text) <= LIMIT
    rows = cells_of(list(tree_of(text).iter("table"))[2])
    assert f"and {3000 - len(rows)} more, in the JSON report" in text
    assert "and 89 more\n" in text
    assert text.count("<details>") == text.count("</details>") == 2
    assert "What was measured, and how" in text


def test_far_too_large():
    """Nothing that a report can hold is too much."""
    report = samples.hostile()
    finding = replace(report.findings[0], message="<" * 10_000, rivals=("&" * 10_000,) * 9)
    report = replace(
        report,
        findings=(finding,) * 50,
        layers=tuple(replace(each, name="&" * 9_000) for each in report.layers) * 50,
    )
    text = render(report)

    assert len(text) <= LIMIT
    assert text.startswith("### ")
    assert {each.tag for each in tree_of(text).iter() if isinstance(each.tag, str)} <= OURS


def test_figures():
    """The first table holds the figures of the worst layers, as the screen does."""
    report = samples.failing()
    worst = sorted(report.layers, key=lambda layer: -layer.shift)[:12]

    rows = cells_of(next(tree_of(render(report)).iter("table")))

    assert [row[:2] for row in rows] == [[each.name, f"{each.shift:.2f}"] for each in worst]
    assert rows[0][2:] == ["2.84-3.00", "dropout 0.34", "body.0.drop model.py:31"]


def test_remedies():
    """A table, without training first; those that were tried tell what they leave, and on what."""
    report = samples.failing()
    tried = Remedy("Drop less", "p = 0.1", needs_training=True)
    tried = replace(tried, worst_shift=1.15, mean_shift=1.03, basis="today's weights, 128 samples")
    plain = replace(tried, title="Look", worst_shift=None, mean_shift=None, basis=None)
    now = replace(plain, title="Repair", needs_training=False)
    text = render(replace(report, remedies={"VS101": (tried, plain), "VS110": (now,)}))
    rest = (
        "1.03 in the mean, with today's weights, 128 samples; eval() gains only by training again"
    )

    assert cells_of(list(tree_of(text).iter("table"))[1]) == [
        ["Repair", "VS110", "p = 0.1", ""],
        ["Drop less, then train again", "VS101", "p = 0.1", f"shift 1.15 at worst, {rest}"],
        ["Look, then train again", "VS101", "p = 0.1", ""],
    ]
