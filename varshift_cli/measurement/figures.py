"""What a model's outputs score against its targets: class labels, yes or no, or values.

What the targets are is read off their dtype, shape and values; where that leaves doubt there is
no figure, and only a metric of the user's own can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional

from varshift_cli.records import Batch, Interval
from varshift_cli.statistics import all_but_one_group, left_out_interval, mean_interval

ACCURACY, LOSS, R2 = "accuracy", "loss", "R2"
_WELL_OUTSIDE, _GOOD_MANY = 0.5, 0.1
"""A tenth of the outputs beyond [-0.5, 1.5] are logits: a regression on 0 and 1 errs less."""


class Targets(Enum):
    """Kinds of targets that outputs can be scored against."""

    CLASSES = "classes"
    """A class for each sample; outputs are scores, shape (samples, classes)."""
    CHANCES = "chances"
    """0 or 1 for each sample; one output a sample, its probability."""
    LOGITS = "logits"
    """Likewise, but the outputs are logits: a good many lie well outside [0, 1]."""
    VALUES = "values"
    """Numbers in the shape of the outputs, as in a regression."""


def targets_of(batches: Sequence[Batch]) -> Tensor | None:
    """The targets of all samples, shape (samples, ...), on the CPU.

    ``None`` if a batch has none, or their shapes differ.
    """
    found = [batch.labels for batch in batches if isinstance(batch.labels, Tensor)]
    if not found or len(found) < len(batches):
        return None
    if any(each.dim() == 0 or each.shape[1:] != found[0].shape[1:] for each in found):
        return None
    if any(each.is_complex() or each.layout is not torch.strided for each in found):
        return None
    return torch.cat([each.detach().cpu() for each in found])


def labels_of(batches: Sequence[Batch]) -> Tensor | None:
    """Class labels of all samples, shape (samples,), int64; ``None`` if they have none."""
    targets = targets_of(batches)
    if targets is None or not _are_labels(targets):
        return None
    return targets.long().reshape(-1)


def kind_of(outputs: Tensor, targets: Tensor | None) -> Targets | None:
    """What the targets are to such outputs; ``None`` where they do not fit."""
    if targets is None or len(targets) != len(outputs) or not bool(outputs.isfinite().all()):
        return None
    if _are_labels(targets) and outputs.dim() == 2 and outputs.shape[1] > 1:
        inside = bool((targets >= 0).all()) and bool((targets < outputs.shape[1]).all())
        return Targets.CLASSES if inside else None
    if outputs.numel() != targets.numel():
        return None
    if _are_zero_or_one(targets):
        return _yes_or_no(outputs) if outputs.numel() == len(outputs) else None
    if _are_shares(targets):
        return None
    counted = outputs.numel() == len(outputs)  # whole numbers, one a sample: counts, ages, prices
    return Targets.VALUES if (counted or targets.is_floating_point()) and _vary(targets) else None


def misfit(outputs: Tensor | None, targets: Tensor) -> str:
    """Why outputs cannot be scored against these targets, in a clause."""
    if outputs is None:
        return "the model returns no floating tensor with a row for each sample"
    shapes = f"outputs have shape {_shape(outputs)}, targets {_shape(targets)}"
    if not bool(outputs.isfinite().all()):
        return "the outputs hold NaN or infinity"
    if targets.is_floating_point() and not bool(targets.isfinite().all()):
        return "the targets hold NaN or infinity"
    if _are_labels(targets) and outputs.dim() == 2 and outputs.shape[1] > 1:
        low, high = int(targets.min()), int(targets.max())
        return f"labels run from {low} to {high}, but there are {outputs.shape[1]} outputs"
    if outputs.numel() != targets.numel():
        return shapes
    if _are_zero_or_one(targets) and outputs.numel() == len(outputs):
        return "targets are 0 or 1, but outputs are neither probabilities nor plainly logits"
    if _are_zero_or_one(targets):
        return f"targets are 0 or 1 in several columns ({shapes})"
    if _are_shares(targets):
        return f"targets are shares of classes that add up to 1 ({shapes})"
    if not targets.is_floating_point():
        return f"targets are whole numbers in the shape of the outputs ({shapes})"
    if not _vary(targets):
        return "all targets are the same"
    return "they explain none of the variance of the targets (R2 is not above 0)"


def figures(kind: Targets, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Figures whose mean over samples is the score, the decisive one first.

    Args:
        kind: From :func:`kind_of`.
        outputs: Shape (samples, ...).
        targets: Shape (samples, ...).

    Returns:
        By name, float64, shape (samples,): ``accuracy`` and ``loss`` (cross-entropy, nats); for
        values ``R2`` (1 - squared error / variance of the targets, ddof 0) and ``loss`` (squared
        error, mean over the values of a sample).
    """
    scores = outputs.detach().cpu().double()
    if kind is Targets.CLASSES:
        labels = targets.long().reshape(-1)
        return {
            ACCURACY: (scores.argmax(1) == labels).double(),
            LOSS: functional.cross_entropy(scores, labels, reduction="none"),
        }
    rows = scores.reshape(len(scores), -1)
    wanted = targets.double().reshape(len(rows), -1)
    if kind in {Targets.CHANCES, Targets.LOGITS}:
        chance = rows if kind is Targets.CHANCES else torch.sigmoid(rows)
        loss = functional.binary_cross_entropy(chance, wanted, reduction="none")
        return {ACCURACY: ((chance > 0.5).double() == wanted).double()[:, 0], LOSS: loss[:, 0]}
    error = (rows - wanted).square().mean(dim=1)
    variance = (wanted - wanted.mean(dim=0)).square().mean()
    return {R2: 1.0 - error / variance, LOSS: error}


def perfect(kind: Targets, outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs that are right throughout, in the shape and on the scale of the model's own."""
    sure = 10.0 * float(outputs.abs().max()) + 10.0
    if kind is Targets.CLASSES:
        right = functional.one_hot(targets.long().reshape(-1), outputs.shape[1]).to(outputs)
        return right if _are_probabilities(outputs) else sure * right
    right = targets.reshape(outputs.shape).to(outputs)
    if kind is Targets.LOGITS:
        return sure * (2.0 * right - 1.0)
    return right


def scored(outputs: Sequence[Tensor], targets: Tensor | None) -> list[dict[str, Tensor]]:
    """Figures of several outputs of the same samples; none where they cannot be compared.

    They cannot where one is on another scale than the next, or values explain nothing of the
    targets in any of them: those are then not meant to be the targets.
    """
    kinds = {kind_of(each, targets) for each in outputs}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None or targets is None:
        return []
    found = [figures(kind, each, targets) for each in outputs]
    if kind is Targets.VALUES and max(float(each[R2].mean()) for each in found) <= 0.0:
        return []
    return found


def paired_change(before: Tensor, after: Tensor) -> Interval:
    """95 % interval of the mean of after - before, from the differences of samples."""
    return mean_interval(after - before)


def r2_interval(outputs: Tensor, targets: Tensor) -> Interval | None:
    """95 % interval of R2, the variance of the targets being an estimate as well."""
    error = figures(Targets.VALUES, outputs, targets)[LOSS]
    wanted = targets.double().reshape(len(error), -1)

    def r2(rows: Tensor | slice) -> float:
        part = wanted[rows]
        variance = (part - part.mean(dim=0)).square().mean()
        return float(1.0 - error[rows].mean() / variance)

    without = [r2(kept) for kept in all_but_one_group(len(error))]
    return left_out_interval(
        r2(slice(None)), torch.tensor(without, dtype=torch.float64), len(error)
    )


def _are_labels(targets: Tensor) -> bool:
    """Whether targets are one whole number a sample; some data hold those as floats."""
    if targets.dim() == 0 or targets.numel() != len(targets):
        return False
    if not targets.is_floating_point():
        return True
    return bool(targets.isfinite().all()) and bool((targets == targets.round()).all())


def _are_zero_or_one(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def _yes_or_no(outputs: Tensor) -> Targets | None:
    """What single outputs are for targets of 0 and 1; ``None`` in between, as of a regression."""
    if _are_probabilities(outputs):
        return Targets.CHANCES
    outside = (outputs < -_WELL_OUTSIDE) | (outputs > 1.0 + _WELL_OUTSIDE)
    return Targets.LOGITS if float(outside.double().mean()) > _GOOD_MANY else None


def _are_shares(targets: Tensor) -> bool:
    """Whether targets are soft labels: several columns that add up to 1 in each row."""
    if targets.dim() != 2 or targets.shape[1] < 2 or bool((targets < 0).any()):
        return False
    return bool(((targets.sum(dim=1) - 1.0).abs() < 1e-3).all())


def _are_probabilities(rows: Tensor) -> bool:
    return bool(((rows >= 0.0) & (rows <= 1.0)).all())


def _vary(targets: Tensor) -> bool:
    return bool(targets.isfinite().all()) and bool((targets != targets[:1]).any())


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
