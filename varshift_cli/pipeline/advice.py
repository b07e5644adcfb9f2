"""From trials to advice: remedies in order of what they leave, each with how to do it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from varshift_cli.records import (
    DropoutRecord,
    Finding,
    FindingLevel,
    LayerRecord,
    Remedy,
    Report,
)
from varshift_cli.remedies.trials import BETA, Result, Trials

DROPOUT_CODES = ("VS101", "VS102", "VS103", "VS104")
"""Causes whose remedies are tried."""

_RECALIBRATE = "Recalibrate:"
_HARMFUL = "Recalibrate, which does harm here:"
_CONVINCED = 2  # decimals to which two results count as equal, so that the order below decides


def wanted(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The codes to advise on: dropout before BatchNorm, louder than a note."""
    return tuple(
        finding.code
        for finding in findings
        if finding.code in DROPOUT_CODES and finding.level is not FindingLevel.NOTE
    )


def advice(
    trials: Trials,
    dropouts: Sequence[DropoutRecord],
    layers: Sequence[LayerRecord],
    path: str | None,
) -> tuple[Remedy, ...]:
    """Remedies ranked: without training first, recalibration at their head; then by worst shift.

    Args:
        trials: What each leaves.
        dropouts: Those that reach a BatchNorm.
        layers: Their attribution says which of them to name first.
        path: The checkpoint; ``None`` for a model in memory.
    """
    dropouts = _strongest_first(dropouts, layers)
    free = _ranked(_without_training(trials, path))
    if trials.recalibrate is not None:
        # Correct is the safer one where the data do not look like training data, and varshift fix
        # decides that; by the shift alone, recalibration leaves least by construction.
        free.sort(key=lambda remedy: not remedy.title.startswith(_RECALIBRATE))
    return (*free, *_ranked(_with_training(trials, dropouts)))


def without_harm(report: Report) -> Report:
    """The report, with what is known to lower the user's own figure at the end of the remedies."""
    gain = None if report.effect is None else report.effect.gain
    if gain is None or gain.high >= 0.0:
        return report
    return replace(
        report,
        remedies={code: _harmful_last(found) for code, found in report.remedies.items()},
    )


def _harmful_last(remedies: Sequence[Remedy]) -> tuple[Remedy, ...]:
    harmful = [each for each in remedies if each.title.startswith(_RECALIBRATE)]
    others = [each for each in remedies if each not in harmful]
    marked = [replace(each, title=each.title.replace(_RECALIBRATE, _HARMFUL)) for each in harmful]
    return (*others, *marked)


def _strongest_first(
    dropouts: Sequence[DropoutRecord], layers: Sequence[LayerRecord]
) -> list[DropoutRecord]:
    """By the sum over layers of |share|; in the order of the forward where there are no shares."""
    total: dict[str, float] = {}
    for layer in layers:
        for share in layer.attribution or ():
            total[share.name] = total.get(share.name, 0.0) + abs(share.share)
    return sorted(dropouts, key=lambda each: -total.get(each.name, 0.0))


def _ranked(remedies: Iterable[Remedy]) -> list[Remedy]:
    """By the worst layer, then the mean; the order given decides between equals."""
    return sorted(
        remedies,
        key=lambda each: (
            round(each.worst_shift or 0.0, _CONVINCED),
            round(each.mean_shift or 0.0, _CONVINCED),
        ),
    )


def _without_training(trials: Trials, path: str | None) -> Iterable[Remedy]:
    model = None if path is None else shlex.quote(path)
    if trials.recalibrate is not None:
        yield _remedy(
            f"{_RECALIBRATE} recompute the statistics with dropout off",
            f"varshift fix {model} --recalibrate"
            if model
            else "varshift_cli.recalibrate(model, batches)",
            trials.recalibrate,
            trials,
        )
    if trials.correct is not None:
        yield _remedy(
            "Correct: take out of the statistics what dropout put in",
            f"varshift fix {model} --correct" if model else "varshift_cli.correct(model, batches)",
            trials.correct,
            trials,
            samples=trials.everything,
        )


def _with_training(trials: Trials, dropouts: Sequence[DropoutRecord]) -> Iterable[Remedy]:
    where, modules = _where(dropouts), not _has_functional(dropouts)
    strongest = max((each.p or 0.0 for each in dropouts), default=0.0)
    for result, title, edit, call in _changes(trials, strongest):
        if result is not None:
            how = f"{where}: {edit}" + (f"; or varshift_cli.{call}" if modules else "")
            yield _remedy(title, how, result, trials, training=True)


def _changes(trials: Trials, p: float) -> Iterable[tuple[Result | None, str, str, str]]:
    """What each change of the dropouts leaves, its title, the edit, and the call that makes it."""
    yield (
        trials.move,
        "Move the dropout behind the last BatchNorm",
        f"take it out, and put nn.Dropout({p:g}) before the last linear layer",
        "move_dropout(model)",
    )
    uout = f"varshift_cli.Uout({BETA:g})"
    yield (
        trials.uout,
        f"Uout({BETA:g}) in place of dropout",
        f"{uout} in its place",
        f"swap_dropout(model, {uout})",
    )
    yield (
        trials.by_element,
        "Drop elements in place of whole channels",
        f"nn.Dropout({p:g}) in place of Dropout1d, 2d or 3d",
        f"swap_dropout(model, torch.nn.Dropout({p:g}))",
    )
    lower = f"{p * trials.fraction:.2g}"
    yield (
        trials.lower,
        f"Drop less: p = {lower} in place of {p:g}",
        f"p = {lower}",
        f"swap_dropout(model, torch.nn.Dropout({lower}))",
    )
    sigma = (p / (1.0 - p)) ** 0.5 if p < 1.0 else 1.0
    gaussian = f"varshift_cli.GaussianDropout({sigma:.2g})"
    yield (
        trials.gaussian,
        "Gaussian noise of equal strength",
        f"{gaussian} in its place",
        f"swap_dropout(model, {gaussian})",
    )
    yield (
        trials.remove,
        "No dropout before BatchNorm at all",
        "take it out",
        "swap_dropout(model, torch.nn.Identity())",
    )


def _remedy(
    title: str,
    how: str,
    result: Result,
    trials: Trials,
    *,
    training: bool = False,
    samples: int | None = None,
) -> Remedy:
    return Remedy(
        title,
        how,
        training,
        result.worst,
        result.mean,
        f"today's weights, {trials.samples if samples is None else samples:,} samples",
    )


def _where(dropouts: Sequence[DropoutRecord]) -> str:
    """``model.py:37 (12 dropouts)``, the strongest first; names where the code is not known."""
    places = Counter(each.location for each in dropouts if each.location is not None)
    if not places:
        names = [each.name for each in dropouts]
        return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    parts = [place if many == 1 else f"{place} ({many} dropouts)" for place, many in places.items()]
    return ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


def _has_functional(dropouts: Sequence[DropoutRecord]) -> bool:
    """Whether any of them is a call in forward rather than a module."""
    return any("dropout#" in each.name.rpartition(".")[2] for each in dropouts)
