"""A few of the zoo in the suite; ``python -m tests.zoo`` has them all."""

import pytest

from tests.zoo.plants import HEALTHY, PLANTED
from tests.zoo.table import Row, confusion, examine

QUICK = {
    "dropout straight, mlp",
    "six updates, mlp",
    "momentum 0.99, mlp",
    "pruned, mlp",
    "mixup, mlp",
    "normalised twice",
    "plain mlp",
}
CHOSEN = [each for each in (*PLANTED, *HEALTHY) if each.name in QUICK]


@pytest.mark.parametrize("specimen", CHOSEN, ids=lambda specimen: specimen.name)
def test_planted_cause_comes_first(specimen):
    """What was planted is the first finding; a healthy net raises no alarm."""
    row = examine(specimen, seed=0)

    assert row.right, [(each.code, each.message) for each in row.report.findings]


def test_the_zoo_is_large_enough():
    """At least 25 planted causes and 10 healthy nets, each under a name of its own."""
    names = [each.name for each in (*PLANTED, *HEALTHY)]

    assert len(PLANTED) >= 25
    assert len(HEALTHY) >= 10
    assert len(set(names)) == len(names)


def test_table_counts_right_and_wrong():
    """The table marks what was taken for something else, and counts it."""
    row = examine(next(each for each in CHOSEN if each.name == "pruned, mlp"), seed=0)
    wrong = Row(next(each for each in CHOSEN if each.name == "mixup, mlp"), 0, row.report)

    text = confusion([row, wrong])

    assert "planted cause first: 1 of 2 (50%)" in text
    assert "VS502 taken for VS208: 1" in text
