"""A few of the zoo in the suite; ``python -m tests.zoo`` has them all."""

import pytest
import torch

from tests.zoo.plants import HEALTHY, PLANTED
from tests.zoo.table import Row, confusion, examine, net_of
from tests.zoo.training import one_class_each
from varshift_cli import scan

QUICK = {
    "dropout straight, mlp",
    "six updates, mlp",
    "momentum 0.99, mlp",
    "pruned, mlp",
    "mixup, mlp",
    "normalised twice",
    "one class a batch, conv",
    "one class a batch, mlp",
    "plain mlp",
}
CHOSEN = [each for each in (*PLANTED, *HEALTHY) if each.name in QUICK]


@pytest.mark.parametrize("specimen", CHOSEN, ids=lambda specimen: specimen.name)
def test_planted_cause_comes_first(specimen):
    """What was planted is the first finding; a healthy net raises no alarm."""
    row = examine(specimen, seed=0)

    assert row.right, [(each.code, each.message) for each in row.report.findings]


LOADERS = ["one class a batch, conv", "one class a batch, mlp", "plain conv", "plain mlp"]


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no labels"])
@pytest.mark.parametrize("ordered", [True, False], ids=["sorted", "shuffled"])
@pytest.mark.parametrize("name", LOADERS)
def test_loaders(name, ordered, labelled):
    """A sorted loader is told; it accuses statistics only where they were gathered with one."""
    specimen = next(each for each in (*PLANTED, *HEALTHY) if each.name == name)
    x, y = specimen.data()
    generator = torch.Generator().manual_seed(7)
    mixed = torch.randperm(len(y), generator=generator).split(24)
    order = one_class_each(y, generator) if ordered else mixed
    batches = [(x[index], y[index]) if labelled else x[index] for index in order]

    report = scan(net_of(specimen, seed=0), batches)

    codes = [each.code for each in report.findings]
    assert any("the batches come in an order" in note for note in report.notes) is ordered
    if specimen.code is None:
        assert codes == []
    elif labelled or ordered:
        assert codes[0] == "VS302"
    else:
        assert "VS302" not in codes
        (rival,) = [each for each in report.findings[0].rivals if "not shuffled" in each]
        assert "class labels in --data decide" in rival


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
