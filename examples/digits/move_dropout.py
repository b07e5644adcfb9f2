"""Train the digits network again with the dropout moved behind the last BatchNorm.

What `varshift scan model.pt` predicts of that remedy is printed beside what the retrained network
shows. `--epochs` trains for another number of epochs; nothing is written.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from model import build
from torch import Tensor, nn
from train import RECIPES, Split, train

from varshift_cli import Report, move_dropout, scan

HERE = Path(__file__).resolve().parent
MOVE = "Move the dropout behind the last BatchNorm"
BATCH_SIZE = 64


def load_split(name: str) -> Split:
    """Return the images and labels of a file."""
    with np.load(HERE / name) as arrays:
        return Split(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))


def load_model() -> nn.Module:
    """Return the network of model.pt in eval mode."""
    model = build()
    model.load_state_dict(torch.load(HERE / "model.pt", weights_only=True)["model"])
    return model.eval()


def retrained(data: Split, epochs: int | None) -> nn.Module:
    """Return the network trained by the recipe of model.pt, its dropouts moved beforehand."""
    recipe = RECIPES["model"]
    checkpoint = train(
        replace(recipe, epochs=epochs or recipe.epochs), data, seed=2, change=move_dropout
    )
    model = build()
    move_dropout(model)
    model.load_state_dict(checkpoint["model"])  # type: ignore[arg-type]
    return model.eval()


def look(model: nn.Module, data: Split) -> Report:
    """Scan a network on batches of the training images."""
    batches = list(zip(data.x.split(BATCH_SIZE), data.y.split(BATCH_SIZE), strict=True))
    return scan(model, batches)


def figures(report: Report) -> tuple[float, float, float]:
    """Return the worst and the mean shift over layers, and the lowest dropout factor."""
    found = [layer.shift for layer in report.layers if layer.shift is not None]
    factors = [each.factors.dropout for each in report.layers if each.factors.dropout is not None]
    return max(found), sum(found) / len(found), min(factors)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images whose largest logit is that of their label."""
    return float((model(x).argmax(dim=1) == y).float().mean())


def main() -> None:
    """Print the shift as trained, predicted of the move, and measured after training again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own number")
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    training, held_out = load_split("calib.npz"), load_split("heldout.npz")
    model = load_model()
    before = look(model, training)
    (move,) = (each for each in before.remedies["VS101"] if each.title == MOVE)
    again = retrained(training, epochs)
    after = look(again, training)
    was, now = figures(before), figures(after)
    print(f"{'':<18}{'worst shift':>13}{'mean shift':>12}{'dropout':>9}{'held out':>10}")
    print(f"{'as trained':<18}{_row(*was)}{accuracy(model, held_out.x, held_out.y):10.1%}")
    # With no dropout before any BatchNorm the two passes that the factor compares are the same.
    print(f"{'moved, predicted':<18}{_row(move.worst_shift, move.mean_shift, 1.0)}")
    print(f"{'moved, retrained':<18}{_row(*now)}{accuracy(again, held_out.x, held_out.y):10.1%}")


def _row(worst: float | None, mean: float | None, dropout: float) -> str:
    return f"{worst:13.2f}{mean:12.2f}{dropout:9.2f}"


if __name__ == "__main__":
    main()
