import re

import pytest

from varshift_cli.causes import CATALOGUE, find
from varshift_cli.errors import UsageError

EVERY = list(CATALOGUE.values())
OFFERED = {"--recalibrate", "--key", "--data", "--train-data", "--noise"}


def test_short_is_plain():
    """The first paragraph of every cause uses no letter, factor or formula."""
    for cause in EVERY:
        assert not re.search(r"\b[TCER]/[TCER]\b|factor|\^|E\[", cause.short), cause.code


def test_codes():
    """The codes are those that reports use, each once, in order."""
    assert list(CATALOGUE) == [
        "VS101",
        "VS102",
        "VS103",
        "VS104",
        "VS110",
        "VS120",
        "VS121",
        "VS130",
        "VS140",
        "VS201",
        "VS202",
        "VS203",
        "VS204",
        "VS205",
        "VS206",
        "VS207",
        "VS208",
        "VS209",
        "VS210",
        "VS211",
        "VS212",
        "VS301",
        "VS302",
        "VS401",
        "VS402",
        "VS403",
        "VS404",
        "VS405",
        "VS406",
        "VS407",
        "VS408",
        "VS501",
        "VS502",
        "VS503",
    ]
    assert all(code == cause.code for code, cause in CATALOGUE.items())


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_every_cause_is_told_whole(cause):
    """Every cause says how it shows, why it is so, and where to read more."""
    for text in (cause.title, cause.short, cause.signature, cause.why, cause.reference):
        assert text.strip() == text != ""
    assert not cause.title.endswith(".")
    assert cause.signature.endswith(".")
    assert cause.why.endswith(".")
    assert cause.short.endswith(".")


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_remedies_name_the_file(cause):
    """Remedies hold the user's own path, quoted for a shell, and no placeholder."""
    for remedy in cause.remedies_for("my nets/a.pt"):
        assert "{" not in remedy.how
        if remedy.how.startswith("varshift "):
            assert "'my nets/a.pt'" in remedy.how


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_remedies_offer_what_there_is(cause):
    """A command that is recommended exists, with its options."""
    commands = [remedy.how for remedy in cause.remedies if remedy.how.startswith("varshift ")]

    for command in commands:
        assert re.match(r"varshift (scan|fix) \{model\}", command)
        assert set(re.findall(r"--[a-z-]+", command)) <= OFFERED


def test_dropout_causes_cite_the_paper():
    """The dropout causes name the equations they implement."""
    assert "1801.05134, eq. 7-8 (case a)" in CATALOGUE["VS101"].reference
    assert "1801.05134, eq. 9-14 (case b)" in CATALOGUE["VS102"].reference


@pytest.mark.parametrize("code", ["VS101", "vs101", " vs101 ", "101"])
def test_find(code):
    """A code is found in any case, and without its letters."""
    assert find(code) is CATALOGUE["VS101"]


def test_find_nothing():
    """An unknown code is refused, with the nearest one."""
    with pytest.raises(UsageError) as caught:
        find("VS111")

    assert caught.value.message == "there is no cause 'VS111'"
    assert caught.value.hint.startswith("did you mean VS1")
