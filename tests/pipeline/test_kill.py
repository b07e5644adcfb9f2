"""Killed at any moment, a fix leaves the original whole and no half-written file."""

from __future__ import annotations

import os

import pytest

from tests.benchmarks.kill_fix import campaign


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_handful_of_kills() -> None:
    """Six kills at random moments over two containers: see the command for 200 over all."""
    assert sum(campaign(6, seed=1, kinds=("zip", "safetensors")).values()) == 6


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_hundred_kills() -> None:
    """200 kills over all containers."""
    assert sum(campaign(200, seed=0).values()) == 200
