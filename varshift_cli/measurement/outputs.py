"""What the model returned in each regime, and what recalibration would change in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from varshift_cli.measurement.agreement import agreement
from varshift_cli.measurement.figures import ACCURACY, LOSS, R2, paired_change, r2_interval, scored
from varshift_cli.records import Effect, RegimeScores

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
        """Keep a copy of one batch's output, as float32 on the CPU, while there is room."""
        tensor = primary_output(output)
        if tensor is None or not tensor.is_floating_point():
            return
        self.values += tensor.numel()
        if self.values <= MAX_KEPT:
            self.kept[index] = tensor.detach().to("cpu", torch.float32, copy=True)

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


def effect_of(
    eval_outputs: Tensor | None,
    clean_outputs: Tensor | None,
    train_outputs: Tensor | None,
    targets: Tensor | None,
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
    nearness = agreement(train_outputs, eval_outputs, clean_outputs)
    effect = Effect(None, None, relative, None, None, adapted=bool(nearness and nearness.is_lost))
    regimes = [each for each in (eval_outputs, clean_outputs, train_outputs) if each is not None]
    effect = _with_scores(effect, scored(regimes, targets))
    if effect.r2 is not None and targets is not None:
        effect = replace(effect, r2_interval=r2_interval(eval_outputs, targets))
    if not is_classifier(eval_outputs):
        return effect, None
    changed = (eval_outputs.argmax(1) != clean_outputs.argmax(1)).double().mean()
    today, repaired = (
        functional.log_softmax(outputs.double(), dim=1) for outputs in (eval_outputs, clean_outputs)
    )
    kl = (repaired.exp() * (repaired - today)).sum(dim=1).mean()
    return replace(effect, changed_predictions=float(changed), kl=float(kl)), None


def is_classifier(outputs: Tensor) -> bool:
    """Whether outputs may be scores of classes: shape (samples, classes)."""
    return outputs.dim() == 2 and outputs.shape[1] > 1


def accuracy_of(outputs: Tensor | None, targets: Tensor | None) -> float | None:
    """Share of samples that are told rightly; ``None`` unless targets are classes."""
    found = [] if outputs is None else scored([outputs], targets)
    return float(found[0][ACCURACY].mean()) if found and ACCURACY in found[0] else None


def _with_scores(effect: Effect, found: Sequence[Mapping[str, Tensor]]) -> Effect:
    """With the figures of ``eval``, ``clean`` and, where it is known, ``train``."""
    if not found:
        return effect
    today, clean, *train = found
    decisive = next(iter(today))

    def of(name: str) -> RegimeScores | None:
        if name not in today:
            return None
        return RegimeScores(*([float(each[name].mean()) for each in found] + [None])[:3])

    return replace(
        effect,
        accuracy=of(ACCURACY),
        loss=of(LOSS),
        r2=of(R2),
        gain=paired_change(today[decisive], clean[decisive]),
        train_gain=paired_change(today[ACCURACY], train[0][ACCURACY])
        if train and ACCURACY in today
        else None,
    )
