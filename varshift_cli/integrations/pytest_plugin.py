"""The pytest plugin: a fixture ``assert_variance_shift``.

    def test_statistics_hold_in_eval(assert_variance_shift, model, loader):
        assert_variance_shift(model, loader, max_shift=1.25)

pytest loads this file at start-up, so it imports neither torch nor anything that does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from varshift_cli.integrations.assertion import VarianceShiftError, assert_variance_shift
from varshift_cli.records import Report

__all__ = ["VarianceShiftError", "assert_variance_shift"]


@pytest.fixture(name="assert_variance_shift", scope="session")
def _assert_variance_shift() -> Callable[..., Report]:
    """Fail, with the table of layers, if a layer's variance shift is beyond ``max_shift``."""
    return assert_variance_shift
