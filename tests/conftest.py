"""What all tests share."""

import os
import signal

import pytest
import torch

# The nets of the tests are tiny: a second thread costs more than it brings, and on a busy machine
# threads that wait for each other cost most of all. Commands run by tests inherit the variable.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items):
    """Leave slow tests to those who ask for them; the suite is for every change."""
    if os.environ.get("VARSHIFT_SLOW") == "1":
        return
    reason = pytest.mark.skip(reason="slow; VARSHIFT_SLOW=1 runs it")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(reason)


@pytest.fixture
def heard():
    """Started in the background of a shell, Ctrl-C is ignored, here and in every child."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
