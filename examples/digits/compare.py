"""Held-out accuracy of model.pt as trained, after PyTorch's update_bn, and recalibrated."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from model import build
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from varshift_cli import recalibrate

HERE = Path(__file__).resolve().parent
BATCH_SIZE = 64

Batches: TypeAlias = list[tuple[Tensor, Tensor]]


def load_batches(name: str) -> Batches:
    """Return batches of images (B, 1, 8, 8) and labels (B,), in the order of the file."""
    with np.load(HERE / name) as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    starts = range(0, len(y), BATCH_SIZE)
    return [(x[i : i + BATCH_SIZE], y[i : i + BATCH_SIZE]) for i in starts]


def load_model() -> nn.Module:
    """Return the network of model.pt in eval mode."""
    checkpoint = torch.load(HERE / "model.pt", weights_only=True)
    model = build()
    model.load_state_dict(checkpoint["model"])
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the share of images whose largest logit is that of their label."""
    hits = [int((model(x).argmax(dim=1) == y).sum()) for x, y in batches]
    return sum(hits) / sum(len(y) for _, y in batches)


def results() -> Iterator[tuple[str, float]]:
    """Yield what was done to the statistics, and the held-out accuracy in eval mode then."""
    calibration, held_out = load_batches("calib.npz"), load_batches("heldout.npz")
    repairs: dict[str, Callable[[nn.Module], object]] = {
        "as trained": lambda model: model,
        "after update_bn": lambda model: update_bn(calibration, model),
        "after recalibrate": lambda model: recalibrate(model, calibration),
    }
    for label, repair in repairs.items():
        # update_bn leaves dropout on, so its result hangs on the masks drawn.
        torch.manual_seed(0)
        model = load_model()
        repair(model)
        yield label, accuracy(model.eval(), held_out)


def main() -> None:
    """Print one line per result."""
    for label, share in results():
        print(f"{label:<17}  {share:6.1%}")


if __name__ == "__main__":
    main()
