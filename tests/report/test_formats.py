import html
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from tests import samples
from tests.nets import ConvNet, warmed_up
from tests.report.goldens import compare
from tests.report.test_json import anything
from varshift_cli import scan
from varshift_cli.causes import CATALOGUE
from varshift_cli.errors import ReportError
from varshift_cli.records import Report
from varshift_cli.report import (
    FORMATS,
    Style,
    format_of,
    from_json,
    render_catalogue,
    render_cause,
)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "html"])
def test_every_format_renders_everything(name):
    """Every format renders every sample, the same each time, ending in one newline."""
    for report in samples.EVERYTHING.values():
        text = FORMATS[name].render(report)

        assert text == FORMATS[name].render(report)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.json", "json"),
        ("x/A.JSON", "json"),
        ("report.txt", "table"),
        ("a.md", "markdown"),
        ("TEST-varshift.xml", "junit"),
        ("a.sarif", "sarif"),
        ("a.html", "html"),
        ("a.htm", "html"),
    ],
)
def test_suffix(path, name):
    """A file's suffix chooses its format, in any case."""
    assert format_of(path).name == name


@pytest.mark.parametrize(("path", "found"), [("a.gif", "the suffix .gif"), ("a", "no suffix")])
def test_unknown_suffix(path, found):
    """An unknown suffix is refused, with those that are known."""
    with pytest.raises(ReportError) as caught:
        format_of(path)

    assert found in caught.value.message
    assert caught.value.hint == (
        "known suffixes: .txt (table), .json (json), .md (markdown), .xml (junit), .sarif (sarif), "
        ".html (html)"
    )


def test_suffixes_belong_to_one_format():
    """No suffix stands for two formats."""
    suffixes = [suffix for each in FORMATS.values() for suffix in each.suffixes]

    assert len(suffixes) == len(set(suffixes))


def test_saved_report_renders_alike():
    """A report read from a file gives the same as the one in memory, in every format."""
    for report in samples.EVERYTHING.values():
        saved = from_json(FORMATS["json"].render(report))

        for each in FORMATS.values():
            if each.name != "html":  # whose own tests compare fewer: it takes a moment
                assert each.render(saved) == each.render(report)


@pytest.mark.parametrize("code", CATALOGUE)
def test_cause_screens(code):
    """Every cause's screen, to the letter."""
    compare(f"cause-{code}.txt", render_cause(CATALOGUE[code], Style(80)))


def test_catalogue_screen():
    """The list of all causes, to the letter."""
    compare("causes.txt", render_catalogue(CATALOGUE.values()))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
def test_nothing_is_kept_back(name):
    """Every format carries the verdict, what was not measured and why, causes, and notes."""
    report = replace(samples.awkward(), findings=samples.awkward().findings[:2])
    text = html.unescape(FORMATS[name].render(report))
    lines = " ".join(text.split())

    for said in ("SEVERE", "frozen.bn", "it has no running statistics", "VS101", *report.notes):
        assert said in lines
    assert "VS202" in text or "not finite: aux.bn" in text


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in {"html", "json"}])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes
)
@given(anything(Report))
def test_anything_can_be_rendered(name, report):
    """Whatever the records can hold, every format can tell."""
    assert FORMATS[name].render(report).endswith("\n")


@pytest.mark.parametrize("name", FORMATS)
def test_two_scans_give_the_same_bytes(name):
    """Two scans of one model on one set of data are the same report, byte by byte."""
    x = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = warmed_up(ConvNet(), x)

    first, second = (FORMATS[name].render(scan(net, list(x.split(16)))) for _ in range(2))

    assert first == second
