"""What the model returned in each regime, and what recalibration would change in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from varshift_cli.records import Batch, Effect, Interval, RegimeScores

MAX_KEPT = 64_000_000
"""Outputs are kept up to this many values per regime; beyond it the effect is unknown."""


def primary_output(output: Any) -> Tensor | None:
    """The tensor that stands for a model's output: itself, ``.logits``, or the first leaf."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if hasattr(output, "__dict__") and not isinstance(output, (dict, list, tuple)):
        output = list(vars(output).values())
    return next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)


@dataclass(slots=True, eq=False)
class Outputs:
    """The primary output of every batch of one regime."""

    kept: dict[int, Tensor] = field(default_factory=dict)
    values: int = 0

    def keep(self, index: int, output: Any) -> None:
        """Keep one batch's output, as float32 on the CPU, while there is room."""
        tensor = primary_output(output)
        if tensor is None or not tensor.is_floating_point():
            return
        self.values += tensor.numel()
        if self.values <= MAX_KEPT:
            self.kept[index] = tensor.detach().float().cpu()

    def forget(self) -> None:
        """Drop everything: this regime is run again."""
        self.kept.clear()
        self.values = 0

    def joined(self, samples: int) -> Tensor | None:
        """All outputs, shape (samples, ...); ``None`` unless there is a row for every sample."""
        parts = [self.kept[index] for index in sorted(self.kept)]
        if not parts:
            return None
        if any(part.dim() == 0 or part.shape[1:] != parts[0].shape[1:] for part in parts):
            return None
        joined = torch.cat(parts)
        return joined if joined.shape[0] == samples else None


def labels_of(batches: Sequence[Batch]) -> Tensor | None:
    """Class labels of all samples, shape (samples,), int64; ``None`` if a batch has none."""
    labels = [batch.labels for batch in batches if isinstance(batch.labels, Tensor)]
    if not labels or len(labels) < len(batches) or any(label.dim() != 1 for label in labels):
        return None
    joined = torch.cat([label.detach().cpu() for label in labels])
    return None if joined.is_floating_point() else joined.long()


def effect_of(
    eval_outputs: Tensor | None,
    clean_outputs: Tensor | None,
    train_outputs: Tensor | None,
    labels: Tensor | None,
) -> tuple[Effect | None, str | None]:
    """Compare today's outputs (E) with those after recalibration (C) and with dropout on (T).

    Returns:
        The effect, or ``None`` and the reason.
    """
    if eval_outputs is None or clean_outputs is None:
        return None, "the model returned no floating tensor per sample that could be compared"
    if not (eval_outputs.isfinite().all() and clean_outputs.isfinite().all()):
        return None, "the model's outputs are not finite"
    difference = (clean_outputs.double() - eval_outputs.double()).norm()
    relative = float(difference / clean_outputs.double().norm().clamp(min=1e-30))
    if not _is_classifier(eval_outputs):
        return Effect(None, None, relative, None, None), None
    changed = (eval_outputs.argmax(1) != clean_outputs.argmax(1)).double().mean()
    today, repaired = (
        functional.log_softmax(outputs.double(), dim=1) for outputs in (eval_outputs, clean_outputs)
    )
    kl = (repaired.exp() * (repaired - today)).sum(dim=1).mean()
    regimes = (eval_outputs, clean_outputs, train_outputs)
    accuracy = loss = gain = None
    if _fits(labels, eval_outputs):
        accuracy = RegimeScores(*(_accuracy(outputs, labels) for outputs in regimes))
        loss = RegimeScores(*(_cross_entropy(outputs, labels) for outputs in regimes))
        gain = _gain(eval_outputs, train_outputs, labels)
    return Effect(float(changed), float(kl), relative, accuracy, loss, gain), None


def _gain(before: Tensor, after: Tensor | None, labels: Tensor | None) -> Interval | None:
    """Interval of the difference in accuracy, from the differences of samples."""
    if after is None or labels is None:
        return None
    was, now = ((outputs.argmax(1) == labels).double() for outputs in (before, after))
    change = now - was
    half = 1.96 * float(change.std()) / math.sqrt(len(change))
    return Interval(float(change.mean()) - half, float(change.mean()) + half)


def accuracy_of(outputs: Tensor | None, labels: Tensor | None) -> float | None:
    """Share of samples whose argmax is the label; ``None`` unless both are a classifier's."""
    return _accuracy(outputs, labels) if is_classifier(outputs, labels) else None


def is_classifier(outputs: Tensor | None, labels: Tensor | None) -> bool:
    """Whether outputs are scores, shape (samples, classes), that the labels fit."""
    return outputs is not None and _is_classifier(outputs) and _fits(labels, outputs)


def _is_classifier(outputs: Tensor) -> bool:
    return outputs.dim() == 2 and outputs.shape[1] > 1


def _fits(labels: Tensor | None, outputs: Tensor) -> bool:
    return (
        labels is not None
        and labels.shape[0] == outputs.shape[0]
        and bool((labels >= 0).all())
        and bool((labels < outputs.shape[1]).all())
    )


def _accuracy(outputs: Tensor | None, labels: Tensor | None) -> float | None:
    if outputs is None or labels is None:
        return None
    return float((outputs.argmax(1) == labels).double().mean())


def _cross_entropy(outputs: Tensor | None, labels: Tensor | None) -> float | None:
    if outputs is None or labels is None:
        return None
    return float(functional.cross_entropy(outputs.double(), labels))
