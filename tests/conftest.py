"""What all tests share."""

import os

import torch

# The nets of the tests are tiny: a second thread costs more than it brings, and on a busy machine
# threads that wait for each other cost most of all. Commands run by tests inherit the variable.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
