import re
import subprocess
import sys
from dataclasses import replace

import html5lib
import pytest

from tests import samples
from varshift_cli.errors import ReportError
from varshift_cli.records import Factors, Level
from varshift_cli.report import FORMATS, format_of
from varshift_cli.report.text import layer_name

pytest.importorskip("matplotlib", reason="the figures of the HTML report need matplotlib")

SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


@pytest.fixture(scope="module")
def pages():
    """Every sample as a page, rendered once."""
    return {name: FORMATS["html"].render(report) for name, report in samples.EVERYTHING.items()}


def tree_of(page):
    """The page's elements, parsed as browsers do; any error of syntax raises."""
    return html5lib.HTMLParser(strict=True).parse(page)


def texts(tree, tag):
    return ["".join(each.itertext()) for each in tree.iter(HTML + tag)]


def rows_of(tree):
    table = next(each for each in tree.iter(HTML + "table") if each.get("class") == "sortable")
    head = ["".join(cell.itertext()) for cell in table.iter(HTML + "th")]
    body = table.find(HTML + "tbody")
    return [dict(zip(head, ("".join(td.itertext()) for td in row), strict=True)) for row in body]


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_valid(pages, name):
    """The page parses without an error, and no two elements share an id."""
    tree = tree_of(pages[name])
    ids = [each.get("id") for each in tree.iter() if each.get("id") is not None]

    assert len(ids) == len(set(ids))
    links = [each.get("href") for each in tree.iter() if each.tag in {SVG + "a", SVG + "use"}]
    assert {each.removeprefix("#") for each in links} <= set(ids)


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_self_contained(pages, name):
    """Nothing in the page names another file or host, and its policy allows no request."""
    tree = tree_of(pages[name])
    policy = next(
        each.get("content")
        for each in tree.iter(HTML + "meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )

    sources = {each.get(key) for each in tree.iter() for key in ("src", "srcset", "data", "action")}
    assert sources == {None}
    assert all(
        each.get("href").startswith(("#", "data:,")) for each in tree.iter() if each.get("href")
    )
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", pages[name])
    assert "@import" not in pages[name]
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline' 'sha" not in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_nothing_injected(pages, name):
    """One script, ours, whatever the names hold; no handler, no image, no frame."""
    tree = tree_of(pages[name])
    tags = {each.tag.rpartition("}")[2] for each in tree.iter() if isinstance(each.tag, str)}

    assert len(list(tree.iter(HTML + "script"))) == 1
    assert tags.isdisjoint({"img", "iframe", "object", "embed", "base", "template", "math"})
    assert not [key for each in tree.iter() for key in each.attrib if key.startswith("on")]


def test_hostile_names_are_text(pages):
    """Hostile names are in the table as everywhere else, whole."""
    names = [row["layer"] for row in rows_of(tree_of(pages["hostile"]))]

    assert names == [layer_name(name) for name in samples.HOSTILE]


def test_verdict_and_effect_first(pages):
    """The first words are the verdict, then the effect, then the figures, the table, the causes."""
    tree = tree_of(pages["failing"])

    assert texts(tree, "h1") == ["model.pt"]
    assert "FAIL worst body.0.bn3, shift 2.92" in texts(tree, "header")[0]
    assert texts(tree, "h2") == [
        "Effect",
        "Shift of each layer",
        "What the shift is made of",
        "Layers",
        "Why, and what to do",
        "Dropout",
        "Provenance",
    ]
    assert "92.0 % \N{RIGHTWARDS ARROW} 98.1 %" in texts(tree, "dd")


def test_dropout_on_only_where_there_is_some(pages):
    """The figure of train() speaks of dropout where the network has some."""
    assert "95.7 % with dropout on" in pages["shifted"]
    assert "98.4 % in train()" in pages["healthy"]
    assert "with dropout on" not in pages["healthy"]


def test_table(pages):
    """The table holds each layer in execution order, with its figures."""
    rows = rows_of(tree_of(pages["failing"]))
    report = samples.failing()

    assert [row["layer"] for row in rows] == [each.name for each in report.layers]
    assert rows[2]["shift"] == "2.92"
    assert rows[2]["95 %"] == "2.84\N{EN DASH}3.00"
    assert rows[2]["dropout"] == "0.34"
    assert rows[2]["gate"] == "fail"
    assert rows[2]["fed by"] == "body.0.drop model.py:31"


def test_figures_have_a_strip_per_layer(pages):
    """In both figures each layer has a strip that tells its figures and leads to its row."""
    report = samples.failing()
    figures = list(tree_of(pages["failing"]).iter(SVG + "svg"))

    assert len(figures) == 2
    for figure in figures:
        strips = list(figure.iter(SVG + "a"))
        assert [each.get("href") for each in strips] == [
            f"#layer-{index + 1}" for index in range(len(report.layers))
        ]
        told = strips[2].find(SVG + "title").text
        assert told.startswith("body.0.bn3: shift 2.92 (2.84-3.00), dropout 0.34")


def test_points_are_where_the_figures_are():
    """Points of the first figure stand at their shift: heights are linear in it."""
    report = samples.failing()
    tree = tree_of(FORMATS["html"].render(report))
    figure = next(tree.iter(SVG + "svg"))
    uses = [each for each in figure.iter(SVG + "use") if float(each.get("x") or 0) > 45]
    heights = {round(float(each.get("x")), 1): float(each.get("y")) for each in uses}
    width = float(figure.get("viewBox").split()[2])
    step = (width - 44 - 12) / len(report.layers)
    y = [heights[round(44 + step * (index + 0.5), 1)] for index in range(len(report.layers))]

    (y_a, a), (y_b, b) = (y[2], report.layers[2].shift), (y[0], report.layers[0].shift)
    per_unit = (y_b - y_a) / (a - b)
    for place, layer in zip(y, report.layers, strict=True):
        assert place == pytest.approx(y_b - per_unit * (layer.shift - b), abs=0.02)


def test_colours_follow_the_style_sheet(pages):
    """No colour is fixed in a figure, so that a dark screen can have its own."""
    for figure in re.findall(r"<svg.*?</svg>", pages["failing"], re.DOTALL):
        assert set(re.findall(r"#[0-9a-f]{6}\b", figure)) <= {"#ffffff"}
        assert "var(--severe)" in figure or "var(--dropout)" in figure


@pytest.mark.parametrize("name", ["awkward", "known"])
def test_same_bytes(pages, name):
    """The same report gives the same bytes, figures and all."""
    assert FORMATS["html"].render(samples.EVERYTHING[name]) == pages[name]


def test_users_own_style(tmp_path):
    """A matplotlibrc of the user's changes nothing, in a process of its own either."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.fonttype: path\n")
    code = (
        "from tests import samples\nfrom varshift_cli.report import FORMATS\n"
        "import sys\nsys.stdout.buffer.write(FORMATS['html'].render(samples.failing()).encode())"
    )

    done = subprocess.run(
        [sys.executable, "-c", f"import os\nos.chdir({str(tmp_path)!r})\n{code}"],
        capture_output=True,
        check=True,
    )

    assert done.stdout.decode() == FORMATS["html"].render(samples.failing())


def test_extremes():
    """Enormous, tiny, zero and unknown figures are drawn all the same."""
    report = samples.failing()
    first, second, third, *others = report.layers
    layers = (
        replace(first, shift=1e40, shift_interval=None, level=Level.SEVERE, signed=1e-40),
        replace(second, factors=Factors(0.0, None, 1e-30, 1e30), signed=0.0),
        replace(third, shift=None, shift_interval=None, level=None, signed=None),
        *others,
    )

    tree_of(FORMATS["html"].render(replace(report, layers=layers)))


@pytest.mark.parametrize("layers", [(), "unmeasured"])
def test_nothing_measured(layers):
    """Without any measured layer the page says so."""
    report = samples.shifted()
    unmeasured = replace(report.layers[0], shift=None, shift_interval=None, level=None)
    report = replace(report, layers=(unmeasured,) if layers else ())

    page = FORMATS["html"].render(report)

    tree_of(page)
    assert "No layer was measured." in page


def test_without_matplotlib(monkeypatch):
    """Without matplotlib it is said which extra brings it, before any work."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ReportError) as caught:
        format_of("r.html").ready()

    assert "needs matplotlib" in caught.value.message
    assert caught.value.hint == "pip install 'varshift[report]'"
