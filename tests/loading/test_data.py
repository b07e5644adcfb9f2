"""Calibration data as --data names them."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from varshift_cli.loading import load_data


def load(spec, folder, **options):
    settings = {"samples": 1024, "batch_size": 64, "seed": 0, "input": None, "label": None}
    return load_data(
        str(spec),
        data_args=(),
        model=nn.Identity(),
        search_dirs=[folder],
        **(settings | options),
    )


@pytest.mark.parametrize(
    ("samples", "sizes", "told"),
    [
        (64, [64], 64),
        (65, [65], 65),
        (100, [64, 36], 64),
        (129, [64, 65], None),
        (20, [20], 20),
    ],
)
def test_the_size_of_batches(tmp_path, samples, sizes, told):
    """What is told is the size of the batches that there are, a merged last sample counted."""
    np.save(tmp_path / "x.npy", np.zeros((samples, 3), "float32"))

    data = load(tmp_path / "x.npy", tmp_path)

    assert [batch.size for batch in data.batches] == sizes
    assert data.batch_size == told
