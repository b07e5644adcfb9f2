"""Train the two example networks on scikit-learn's handwritten digits.

Writes into `--out`:

* `model.pt`: dropout 0.5 straight before the last BatchNorm of every bottleneck, 12 epochs;
* `no_dropout.pt`: its twin without dropout, on a schedule of its own: 20 epochs in larger
  batches, so that its running statistics describe its final weights closely;
* `calib.npz`: the 1,000 training images x (1000, 1, 8, 8) and labels y (1000,);
* `heldout.npz`: the other 797.

Nothing but ordinary training touches the BatchNorm statistics. The same seed on the same
machine gives the same tensors, bit for bit.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from model import build
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
TRAIN_IMAGES = 1000
SPLIT_SEED = 0
PEAK_LR = 0.1


@dataclass(frozen=True)
class Recipe:
    """How one network is built and trained."""

    where: str
    """Placement of the dropout, as `build` takes it."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step."""


RECIPES = {
    "model": Recipe(where="before_last_bn", epochs=12, batch_size=25),
    # Small batches leave sampling noise in the moving averages: 4 % in the worst layer at 25.
    "no_dropout": Recipe(where="none", epochs=20, batch_size=100),
}


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of the data."""

    x: Tensor
    """Images (N, 1, 8, 8), float32 in [0, 1]."""
    y: Tensor
    """Labels (N,), int64."""

    def save(self, path: Path) -> None:
        """Write both arrays under the names x and y."""
        np.savez_compressed(path, x=self.x.numpy(), y=self.y.numpy())


def load_splits() -> tuple[Split, Split]:
    """Return the 1,000 training images and the 797 held out, stratified by label."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    y = torch.from_numpy(digits.target).long()
    train, held_out = train_test_split(
        np.arange(len(y)), train_size=TRAIN_IMAGES, random_state=SPLIT_SEED, stratify=digits.target
    )
    return Split(x[train], y[train]), Split(x[held_out], y[held_out])


def train(
    recipe: Recipe,
    data: Split,
    *,
    seed: int,
    change: Callable[[nn.Module], object] | None = None,
) -> dict[str, object]:
    """Train one network and return its checkpoint; `change` may edit the network beforehand."""
    torch.manual_seed(seed)
    shuffle = torch.Generator().manual_seed(seed)
    net = build(where=recipe.where)
    if change is not None:
        change(net)
    steps = len(data.y) // recipe.batch_size
    optimizer = torch.optim.SGD(
        net.parameters(), lr=PEAK_LR, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    # Ends at a step size near zero, so that the moving averages catch up with the weights.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        PEAK_LR,
        total_steps=steps * recipe.epochs,
        pct_start=0.25,
        cycle_momentum=False,
    )
    net.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(data.y), generator=shuffle)
        # An incomplete last batch is dropped: its statistics would count as much as a full one's.
        for batch in order[: steps * recipe.batch_size].view(steps, recipe.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(data.x[batch]), data.y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": recipe.epochs,
        "seed": seed,
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="instead of each network's own number")
    parser.add_argument("--seed", type=int, default=2, help="weights, shuffling, dropout masks")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where to write")
    parser.add_argument("--only", choices=RECIPES, metavar="NAME", help="train this network alone")
    return parser.parse_args()


def main() -> None:
    """Write the data and the checkpoints."""
    arguments = parse_arguments()
    torch.use_deterministic_algorithms(mode=True)
    # Sums split over threads differ in the last bits; the result is not to depend on the cores.
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    training, held_out = load_splits()
    training.save(arguments.out / "calib.npz")
    held_out.save(arguments.out / "heldout.npz")
    for name, recipe in RECIPES.items():
        if arguments.only in {None, name}:
            epochs = recipe.epochs if arguments.epochs is None else arguments.epochs
            checkpoint = train(replace(recipe, epochs=epochs), training, seed=arguments.seed)
            torch.save(checkpoint, arguments.out / f"{name}.pt")


if __name__ == "__main__":
    main()
