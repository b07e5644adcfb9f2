import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.nets import Mlp
from varshift_cli import DataError, scan
from varshift_cli.pipeline import draw_batches

X = torch.arange(40 * 12, dtype=torch.float32).reshape(40, 12)


def shuffling():
    """A loader that draws from torch's global state, and a transform that draws from the others."""

    def collate(items):
        x = torch.stack([item[0] for item in items])
        return x + random.random() + np.random.random()  # noqa: NPY002, S311

    return DataLoader(TensorDataset(X), batch_size=16, shuffle=True, collate_fn=collate)


def test_no_trace_in_random_numbers():
    """Drawing and scanning leave the global random states where they were, also on an error."""
    model, bad = Mlp(), [X, "not a batch"]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    draw_batches(model, shuffling())
    scan(model, shuffling())
    with pytest.raises(DataError):
        draw_batches(model, bad)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002


@pytest.mark.parametrize(
    ("samples", "sizes"), [(None, [16, 16, 8]), (20, [16, 4]), (32, [16, 16]), (99, [16, 16, 8])]
)
def test_no_more_than_asked_for(samples, sizes):
    """The first samples are taken, the last batch cut to fit, and no further batch is drawn."""
    drawn, _notes = draw_batches(Mlp(), X.split(16), samples=samples)

    assert [batch.size for batch in drawn] == sizes
    assert torch.equal(torch.cat([batch.args[0] for batch in drawn]), X[: sum(sizes)])


def test_an_endless_stream_ends():
    """A stream without end is left once there are enough samples."""

    def forever():
        while True:
            yield torch.randn(8, 12)

    assert sum(batch.size for batch in draw_batches(Mlp(), forever(), samples=100)[0]) == 100
