"""What all tests share."""

import os
import signal

import pytest
import torch

# The nets of the tests are tiny: a second thread costs more than it brings, and on a busy machine
# threads that wait for each other cost most of all. Commands run by tests inherit the variable.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Figures are compared to more digits than TF32 keeps: tests run on the CPU, where there is a GPU
# as well, except those of tests/device.
GPU = os.environ.get("VARSHIFT_GPU") == "1"
if not GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    """Leave slow tests to those who ask for them, and the GPU's; the suite is for every change."""
    asked = {"slow": os.environ.get("VARSHIFT_SLOW") == "1", "gpu": GPU}
    reasons = {
        "slow": "slow; VARSHIFT_SLOW=1 runs it",
        "gpu": "needs a CUDA device; VARSHIFT_GPU=1 pytest tests/device runs it",
    }
    for item in items:
        for mark, reason in reasons.items():
            if mark in item.keywords and not asked[mark]:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def heard():
    """Started in the background of a shell, Ctrl-C is ignored, here and in every child."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
