import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

from tests import samples
from varshift_cli.report import render_notebook, render_table


class Text(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_notebook_shows_the_table():
    """In a notebook a report is its table, and nothing else."""
    shown = Text(samples.shifted()._repr_html_())

    assert shown.tags == ["pre"]
    assert shown.text == render_table(samples.shifted())


def test_names_cannot_inject():
    """Markup in a layer's name is text."""
    report = samples.shifted()
    name = "<script>alert(1)</script>&amp;\"'"
    report = replace(report, layers=(replace(report.layers[2], name=name), *report.layers[3:]))

    shown = Text(render_notebook(report))

    assert shown.tags == ["pre"]
    assert name in shown.text


def test_print_shows_the_table():
    """print(report) is the table."""
    assert str(samples.shifted()) == render_table(samples.shifted())


def test_the_face_loads_it():
    """Who takes scan from the package has reports that show themselves."""
    code = (
        "import varshift_cli\n"
        "from varshift_cli.records.report import _DRAWN\n"
        "varshift_cli.Report\n"
        "assert not _DRAWN\n"
        "varshift_cli.scan\n"
        "assert set(_DRAWN) == {'text', 'html'}\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
