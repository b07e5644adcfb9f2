import re
import shlex

import pytest
import typer.main

import varshift_cli
from varshift_cli.causes import CATALOGUE, find
from varshift_cli.cli.app import program_for
from varshift_cli.errors import UsageError
from varshift_cli.pipeline.advice import DROPOUT_CODES
from varshift_cli.report import Style, render_cause

EVERY = list(CATALOGUE.values())
COMMANDS = typer.main.get_command(program_for(())).commands
OPTIONS = {
    name: {option for parameter in command.params for option in parameter.opts}
    for name, command in COMMANDS.items()
}
VERBS = {"does", "imitates", "counts", "names", "is"}
"""What follows ``varshift`` where it is the subject of a sentence, not a command."""
MEASURED = {"R", "T", "C", "E"}
NAMED = {name for cause in EVERY for letters, _ in cause.letters for name in letters.split(", ")}
"""Every letter or short name that some cause defines."""
LONE = re.compile(r"(?<![\w'.])(?:[B-HJ-Zb-z]|\w_[ij]|cos2|rho)(?![\w'.(])")
"""A letter by itself, the English words a and I left out; or a name that only formulas have."""


def texts(cause):
    """All that a cause says, but for what its letters mean."""
    remedies = [text for each in cause.remedies for text in (each.title, each.how)]
    return [cause.title, cause.short, cause.why, cause.signature, *remedies]


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_plain_where_no_letters_are_explained(cause):
    """Only the signature, which the letters stand before, uses letters, factors or formulas."""
    remedies = [text for each in cause.remedies for text in (each.title, each.how)]
    for text in (cause.short, cause.why, *remedies):
        plain = re.sub(r"[\w.]+\(.*?\)", "", text)  # a call in Python
        assert set(LONE.findall(plain)) <= {"p"}, text  # as torch.nn.Dropout calls it
        assert not re.search(r"\b[TCER]/[TCER]\b|factor [TCER]|\^|E\[", plain), text


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_signature_uses_the_letters_that_are_explained(cause):
    """Every letter of a signature is explained before it, and no other."""
    formulas = cause.signature.replace("_j", "_i")
    used = set(LONE.findall(formulas)) | NAMED & set(re.findall(r"(?<!')\b\w+", formulas))
    defined = {name for letters, _ in cause.letters for name in letters.split(", ")}

    legend = "\n".join(cause.legend)
    assert used - MEASURED == defined
    assert bool(used & MEASURED) == ("R stored" in legend)
    assert all(f"{letters}: {meaning}" in legend for letters, meaning in cause.letters)
    assert not defined & MEASURED


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_letters_come_before_what_uses_them(cause):
    """The screen explains letters above the signature."""
    screen = render_cause(cause)

    assert bool(cause.legend) == ("\nLetters" in screen)
    assert screen.find("\nLetters") < screen.index("\nSignature") < screen.index("\nRemedies")


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_fits_a_screen(cause):
    """No cause needs more than 48 lines of 100."""
    lines = render_cause(cause, Style(100)).splitlines()

    assert len(lines) <= 48
    assert max(map(len, lines)) <= 100


def test_codes():
    """The codes are those that reports use, each once, in order."""
    assert list(CATALOGUE) == [
        "VS101",
        "VS102",
        "VS103",
        "VS104",
        "VS105",
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
    """A remedy that begins as a command is one whole command, which the CLI has."""
    commands = [remedy.how for remedy in cause.remedies if remedy.how.startswith("varshift")]

    for how in commands:
        if how.startswith("varshift_cli."):
            continue
        program, name, *arguments = shlex.split(how)
        assert program == "varshift"
        COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_texts_name_what_there_is(cause):
    """Commands, options and functions that a text names exist."""
    for text in texts(cause):
        for name in re.findall(r"\bvarshift (\w+)", text):
            assert name in COMMANDS.keys() | VERBS, text
        for name, option in re.findall(r"\b(scan|fix|lint) (?:\{model\} )?(--[a-z-]+)", text):
            assert option in OPTIONS[name], text
        for option in re.findall(r"--[a-z-]+", text):
            assert option in set().union(*OPTIONS.values()), text
        for name in re.findall(r"\bvarshift_cli\.(\w+)", text):
            assert hasattr(varshift_cli, name), text
        for code in re.findall(r"VS\d+", text):
            assert code in CATALOGUE, text


@pytest.mark.parametrize("code", DROPOUT_CODES)
def test_dropout_has_both_repairs(code):
    """Where dropout is the cause, both repairs are offered, as the scan tries both."""
    commands = [remedy.how for remedy in CATALOGUE[code].remedies]

    assert "varshift fix {model} --recalibrate" in commands
    assert "varshift fix {model} --correct" in commands


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


def test_stale_names_unmixed_batches_and_what_decides():
    """VS210: batches in training sorted by class look like it until class labels tell them."""
    stale = CATALOGUE["VS210"]

    assert "one class each" in stale.why
    assert "(VS302)" in stale.why
    assert any("(VS302)" in each.title and "class labels" in each.title for each in stale.remedies)


@pytest.mark.parametrize("cause", EVERY, ids=lambda cause: cause.code)
def test_remedies_without_training_come_first(cause):
    """What can be done today stands before what asks for another training."""
    trained = [each.needs_training for each in cause.remedies]

    assert trained == sorted(trained)
