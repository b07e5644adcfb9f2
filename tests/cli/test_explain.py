import pytest

from varshift_cli.causes import CATALOGUE
from varshift_cli.report import render_catalogue, render_cause


def test_all(run):
    """Without a code all causes are listed."""
    ended = run("explain")

    assert (ended.code, ended.out) == (0, render_catalogue(CATALOGUE.values()))


@pytest.mark.parametrize("code", ["VS101", "vs101", "101"])
def test_one(run, code):
    """A code is explained, however it is written."""
    assert run("explain", code).out == render_cause(CATALOGUE["VS101"])


def test_unknown(run):
    """An unknown code exits 2 and names the nearest."""
    ended = run("explain", "VS219")

    assert ended.code == 2
    assert ended.err.startswith("error: there is no cause 'VS219'\nhint:  did you mean VS21")


@pytest.mark.parametrize("code", ["VS999", "VS190", "VS599", "foo"])
def test_nothing_near(run, code):
    """A code far from any is answered by how to list them."""
    ended = run("explain", code)

    assert (
        ended.err == f"error: there is no cause {code!r}\nhint:  varshift explain lists them all\n"
    )
