"""Whether batches come in an order."""

import pytest
import torch

from tests.nets import batches_of
from varshift_cli.measurement.ordering import Order, order_of
from varshift_cli.records import Batch


def samples(seed: int = 0):
    """Two hundred images of four classes, whose classes differ a little in every pixel."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(200) // 50
    x = torch.randn(200, 3, 6, 6, generator=generator)
    far = torch.randn(4, 3, 6, 6, generator=generator)
    return x + 0.7 * far[labels], labels


def shuffled(seed: int, *parts):
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    return [part[order] for part in parts]


def test_one_class_a_batch():
    """Labels tell it by themselves."""
    x, labels = samples()

    assert order_of(batches_of(x, 25, labels)) == Order(by_class=True, ratio=None)


def test_inputs_tell_it_too():
    """Without labels, the inputs vary between batches as no mixed batches do."""
    x, _ = samples()

    found = order_of(batches_of(x, 25))

    assert not found.by_class
    assert found.ratio > 5.0


def test_classes_in_blocks_but_not_pure():
    """Two classes a batch, two after two: no batch is of one class, and yet it is an order."""
    x, labels = samples()
    halves = torch.cat([torch.randperm(100), 100 + torch.randperm(100)])

    found = order_of(batches_of(x[halves], 25, labels[halves]))

    assert found is not None
    assert not found.by_class


@pytest.mark.parametrize("size", [8, 25, 60])
@pytest.mark.parametrize("seed", range(5))
def test_mixed_batches(seed, size):
    """Batches dealt at random have no order, with labels or without."""
    x, labels = shuffled(seed, *samples())

    assert order_of(batches_of(x, size, labels)) is None
    assert order_of(batches_of(x, size)) is None


def test_uneven_samples_are_no_order():
    """Samples of very different size make the variance between mixed batches uneven, no more."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 10, generator=generator) * torch.exp(
        1.5 * torch.randn(200, 1, generator=generator)
    )

    assert order_of(batches_of(x, 20)) is None


def test_too_few_batches():
    """Two batches that differ are no order."""
    x, labels = samples()

    assert order_of(batches_of(x, 100, labels)) is None


def test_one_class_in_all():
    """One class in every batch, the same in all, is no order of classes."""
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))

    assert order_of(batches_of(x, 25, torch.zeros(200, dtype=torch.long))) is None


def test_inputs_that_do_not_compare():
    """Whole numbers, scalars per sample, and rows of other sizes are left alone."""
    ids = torch.arange(200).view(200, 1)
    assert order_of(batches_of(ids, 25)) is None
    assert order_of(batches_of(torch.arange(200.0), 25)) is None
    lengths = [Batch((torch.randn(20, 5 + each),), {}, None, 20) for each in range(5)]
    assert order_of(lengths) is None
    assert order_of(batches_of(torch.ones(200, 4), 25)) is None
