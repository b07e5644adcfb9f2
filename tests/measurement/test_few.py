"""A few samples of the calibration batches: which, how many, and with which keys."""

from __future__ import annotations

import pytest
import torch

from tests.nets import batches_of
from varshift_cli.measurement.few import few_samples
from varshift_cli.measurement.samples import identify


@pytest.mark.parametrize("size", [7, 16, 64, 100])
def test_rounds_of_arrays_are_disjoint_and_exact(size: int) -> None:
    """Cut to any batch size, rounds of 30 of 100 samples are rows 0-30, 30-60, 60-90, 90-100."""
    x = torch.arange(200.0).view(100, 2)
    batches = batches_of(x, size)
    samples = identify(batches)
    keys = torch.cat(samples.keys)
    for skip, stop in ((0, 30), (30, 60), (60, 90), (90, 100)):
        few, few_keys, count = few_samples(batches, samples, 30, skip=skip, regroup=True)
        assert count == stop - skip
        assert torch.equal(torch.cat([batch.args[0] for batch in few]), x[skip:stop])
        assert torch.equal(torch.cat(few_keys.keys), keys[skip:stop])
        assert sum(batch.size for batch in few) == count
        sizes = torch.bincount(torch.cat(few_keys.groups), minlength=few_keys.count)
        assert int(sizes.max() - sizes.min()) <= 1
    assert few_samples(batches, samples, 30, skip=100, regroup=True)[2] == 0


def test_batches_of_a_loader_are_taken_whole() -> None:
    """What a loader yields is not cut: rounds of at least 30 in batches of 16 are two batches."""
    x = torch.arange(200.0).view(100, 2)
    batches = batches_of(x, 16)
    samples = identify(batches)
    rounds, skip = [], 0
    while True:
        few, _, count = few_samples(batches, samples, 30, skip=skip, regroup=False)
        if not count:
            break
        assert all(any(batch is one for one in batches) for batch in few)
        rounds.append(count)
        skip += count
    assert rounds == [32, 32, 32, 4]
