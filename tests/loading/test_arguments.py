import pytest

from varshift_cli.errors import UsageError
from varshift_cli.loading.arguments import parse_arguments, show_call


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[2, 2]", [2, 2]),
        ("true", True),
        ("null", None),
        ("0.5", 0.5),
        ('"adam"', "adam"),
        ("(2, 2)", (2, 2)),
        ("(2,)", (2,)),
        ("[(1, 2), None]", [(1, 2), None]),
        ("{'a': (1, 2)}", {"a": (1, 2)}),
        ("None", None),
        ("True", True),
        (".5", 0.5),
        ("-1.", -1.0),
        ("'adam'", "adam"),
        ("adam", "adam"),
        ("1,2", "1,2"),
        ("(2, 2", "(2, 2"),
        ("[a, b]", "[a, b]"),
        ("(build())", "(build())"),
        ("b'x'", "b'x'"),
        ("'\\d'", "'\\d'"),
        ("a=b", "a=b"),
        ("", ""),
        ("(" * 10_000, "(" * 10_000),
    ],
)
def test_values(text, value):
    """JSON, then a literal of Python, then the text as it stands; nothing is ever run."""
    found = parse_arguments([f"x={text}"], "--arch-arg")["x"]

    assert (found, type(found)) == (value, type(value))


def test_the_call_shows_what_became_of_it():
    """A tuple is shown as one."""
    given = parse_arguments(["blocks=(2, 2)", "act=relu"], "--arch-arg")

    assert show_call("model.py:Net", given) == "model.py:Net(blocks=(2, 2), act='relu')"


def test_no_name():
    """A text without a name is refused, with an example of each form."""
    with pytest.raises(UsageError) as caught:
        parse_arguments(["(2, 2)"], "--arch-arg")

    assert "--arch-arg 'blocks=(2, 2)'" in (caught.value.hint or "")
