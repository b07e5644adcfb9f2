"""Which repair to take, if any: by labels on held-out samples, else by what the buffers describe.

Nothing is repaired that is not off; without labels nothing is guessed where two opposite causes
look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from varshift_cli.diagnosis.staleness import Staleness, staleness_of
from varshift_cli.measurement import Measurement
from varshift_cli.measurement.figures import ACCURACY, R2
from varshift_cli.pipeline.certainty import Answers, Certainty
from varshift_cli.pipeline.scoring import Judge, is_better, is_worse
from varshift_cli.records import MEAN_IS_OFF, NON_FINITE, Describe, Level, Report, Score

WITHIN_MOMENTUM = 5.0
"""Excess of staleness below which the buffers are what training would have gathered on this
data. Nets on their own data read 0.5 to 4. Of 60 others between 4 and 5 (augmented, pruned,
averaged) 52 gained by recalibration and 6 lost, by 1.5 points at most; from 5 on some lose more."""
FAR_BEYOND = 10.0
"""Excess above which nobody can tell whether weights were changed afterwards, by pruning or
averaging (2 to 8), or BN was frozen in fine-tuning (7 to 25)."""
CHANGED = 0.4
"""Median over layers of the channel mean of |ln T/R| from which the weights may have changed."""
NEVER_UPDATED = (
    "running statistics are at mean 0, variance 1 and were never updated: either they were "
    "forgotten, or the network was trained in eval mode and they are right"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do, and why.

    Attributes:
        method: ``recalibrate``, ``correct``, or ``None`` for neither.
        reason: In numbers.
        needed: False where nothing is wrong that a repair could set right.
        scores: Of the chosen method on held-out samples, or those that spoke against all.
    """

    method: str | None
    reason: str
    needed: bool = True
    scores: tuple[Score, ...] = ()


def never_updated(report: Report) -> frozenset[str]:
    """Names of layers that are as they were made, of those that a batch reached."""
    fresh = {name for each in report.findings if each.code == "VS201" for name in each.layers}
    return frozenset(layer.name for layer in report.layers if layer.name.partition("#")[0] in fresh)


def nothing_needed(report: Report) -> Choice | None:
    """The reason why nothing has to be repaired, if there is one."""
    codes = {finding.code for finding in report.findings}
    if codes.intersection(NON_FINITE) or never_updated(report) or _is_better_recalibrated(report):
        return None
    if report.buffers.describe is Describe.CLEAN:
        slope, error = report.buffers.slope, report.buffers.slope_se
        shown = "" if slope is None or error is None else f" (slope {slope:.2f} +- {error:.2f})"
        return Choice(
            None,
            f"the buffers describe the network with dropout off already{shown}: repaired before, "
            "or BatchNorm was frozen",
            needed=False,
        )
    levels = [layer.level for layer in report.layers]
    if levels and all(level is Level.FINE for level in levels) and not _means_are_off(report):
        worst = max(layer.shift or 1.0 for layer in report.layers)
        many = "the layer is" if len(levels) == 1 else f"all {len(levels)} layers are"
        return Choice(None, f"{many} fine (worst shift {worst:.2f})", needed=False)
    return None


def _is_better_recalibrated(report: Report) -> bool:
    """Whether the user's own figure gains by it beyond noise, whatever the variances say."""
    gain = None if report.effect is None else report.effect.gain
    return gain is not None and gain.low > 0.0


def _means_are_off(report: Report) -> bool:
    return any((layer.mean_shift or 0.0) > MEAN_IS_OFF for layer in report.layers)


def choose_by_labels(
    judge: Judge,
    as_is: Tensor,
    candidates: Mapping[str, Tensor],
    data: str,
    *,
    subject: str,
    by_buffers: Callable[[], Choice],
    doubtful: bool = False,
) -> Choice | None:
    """The better of the repairs by their figures; between those alike, what the buffers say.

    Labels of training samples are a weak judge, as the network knows them by heart: where they
    speak neither for nor against a repair, the buffers do (``tests/benchmarks/repair_table.py``:
    within one standard error of the best choice in more cells than by labels alone).

    Args:
        judge: Of outputs.
        as_is: Outputs of today.
        candidates: Outputs after each repair, on samples that it has not seen.
        data: What those samples are called.
        subject: What the buffers look like, to be said first.
        by_buffers: The choice without labels.
        doubtful: The network may have been trained with its buffers as they are, never updated.
            Then only the decisive figure counts: a lower loss may be mere calibration.

    Returns:
        ``None`` where no repair has a figure.
    """
    scores = {name: judge.compare(as_is, after, data) for name, after in candidates.items()}
    scores = {name: found for name, found in scores.items() if found}
    if not scores:
        return None
    ranked = sorted(scores, key=lambda name: _rank(scores[name]), reverse=True)
    is_gain = _rises if doubtful else _is_gain
    accepted = [name for name in ranked if is_gain(scores[name])]
    best = _best(judge, {name: candidates[name] for name in accepted}, data)
    favourite = by_buffers()
    told = _told(ranked, scores)
    if _is_unopposed(judge, favourite.method, best, scores, candidates, data):
        assert favourite.method is not None
        by_rule = favourite.reason.removesuffix(", no labels")
        why = {
            favourite.method: "",
            None: f"; no figure rises or falls beyond noise, and {by_rule}",
        }.get(best, f"; no figure tells the two apart, and {by_rule}")
        reason = f"{subject}on {data} {told}{why}"
        return Choice(favourite.method, reason, scores=scores[favourite.method])
    if best is not None:
        lead = "" if best == accepted[0] else f"; of the two {best} has the lower loss beyond noise"
        return Choice(best, f"{subject}on {data} {told}{lead}", scores=scores[best])
    lost = all(is_worse(scores[name][0]) for name in ranked)
    verdict = "every repair does harm" if lost else "no repair is better beyond noise"
    if doubtful and any(_is_gain(scores[name]) for name in ranked):
        verdict = f"{NEVER_UPDATED}; the loss falls, but {scores[ranked[0]][0].name} does not rise"
    return Choice(
        None,
        f"{verdict}: on {data} {told}",
        scores=scores[ranked[0]],
    )


def _best(judge: Judge, accepted: Mapping[str, Tensor], data: str) -> str | None:
    """Of repairs in order of the figure the first, unless its lead is noise and its loss higher."""
    best: str | None = None
    for name, outputs in accepted.items():
        if best is None or _overtakes(judge.compare(accepted[best], outputs, data)):
            best = name
    return best


def _overtakes(scores: Sequence[Score]) -> bool:
    """Whether the decisive figure does not speak against it beyond noise, and the loss for it."""
    return (
        bool(scores)
        and not is_worse(scores[0])
        and any(each.name == "loss" and is_better(each) for each in scores)
    )


def _is_unopposed(
    judge: Judge,
    favourite: str | None,
    best: str | None,
    scores: Mapping[str, Sequence[Score]],
    candidates: Mapping[str, Tensor],
    data: str,
) -> bool:
    """Whether labels leave the choice to the buffers: no figure speaks against their favourite."""
    if favourite is None or favourite not in scores:
        return False
    if any(is_worse(score) for score in scores[favourite]):
        return False
    return best in {None, favourite} or _alike(
        judge, [candidates[favourite], candidates[best or favourite]], data
    )


def harm(scores: Sequence[Score]) -> Score | None:
    """The decisive score, if it falls beyond noise; else R2 or accuracy, if they do beside it.

    A metric of the user's own is known on few groups of samples, in one of which a single sample
    may hide what happens to all others.
    """
    if not scores or is_worse(scores[0]):
        return scores[0] if scores else None
    if scores[0].after >= scores[0].before:
        return None
    return next((each for each in scores if each.name in {R2, ACCURACY} and is_worse(each)), None)


def told_harm(method: str, worse: Score) -> str:
    """What a repair lowers, from what to what, with the interval."""
    percent = worse.name == "accuracy"
    unit, digits = (100.0, ".1f") if percent else (1.0, ".4g")
    sign = " %" if percent else ""
    assert worse.difference is not None
    low, high = worse.difference.low, worse.difference.high
    return (
        f"{method} does harm: {worse.name} on {worse.data} falls from "
        f"{unit * worse.before:{digits}}{sign} to {unit * worse.after:{digits}}{sign} "
        f"(95 %: {unit * low:+{digits}} to {unit * high:+{digits}})"
    )


def choose_by_buffers(report: Report, stale: Staleness | None, certainty: Certainty) -> Choice:
    """Without labels: by how far the buffers are from what training would gather here.

    Args:
        report: The scan.
        stale: T against R.
        certainty: Of the outputs as they are, recalibrated and corrected.
    """
    codes = {finding.code for finding in report.findings}
    if never_updated(report):
        return Choice(None, f"{NEVER_UPDATED}; only labels can tell")
    if "VS202" in codes:
        return Choice(
            "recalibrate", "running statistics are not finite: only new ones can replace them"
        )
    if report.layers and all(layer.factors.dropout is None for layer in report.layers):
        return Choice(
            None,
            "dropout was taken out of this file, so it cannot be told what the buffers describe: "
            "recalibrate is right if these are the training data; only labels can tell",
        )
    if stale is None:
        return Choice(None, "no layer could be compared with its buffers")
    figure = f"median |ln T/R| {stale.distance:.2f}, {stale.excess:.1f} times what momentum allows"
    if stale.excess < WITHIN_MOMENTUM and not certainty.loses_classes:
        return Choice(
            "recalibrate", f"the buffers describe this data with dropout on ({figure}), no labels"
        )
    if certainty.is_lost:
        return Choice(
            None,
            "the network seems to have been trained with these buffers, as with BatchNorm frozen "
            f"in fine-tuning ({figure}): recalibrated it is less certain or loses classes "
            f"({_compared(certainty.as_is, certainty.recalibrated)}); only labels can tell",
        )
    if certainty.is_gained and stale.excess > FAR_BEYOND:
        return Choice(
            None,
            f"the buffers do not fit the weights ({figure}): either the weights changed after the "
            "buffers were gathered, as by pruning or EMA (recalibrate would be right), or they "
            "were trained with these buffers, BatchNorm frozen (nothing would); only labels can "
            "tell",
        )
    if stale.distance > CHANGED:
        return Choice(
            None,
            f"the buffers are far from this data even with dropout on ({figure}): other data than "
            "in training (correct would be right), or weights changed after the buffers were "
            "gathered, as by pruning, EMA or fine-tuning (recalibrate would); only labels can tell",
        )
    if certainty.is_gained:
        return Choice(
            "recalibrate",
            f"the buffers do not fit the weights ({figure}), and recalibrated the network is much "
            f"more certain than corrected ({_compared(certainty.corrected, certainty.recalibrated)}"
            "), as after pruning or averaging; no labels",
        )
    return Choice(
        "correct",
        f"these data do not look like the training data with its augmentation ({figure}), no "
        "labels",
    )


def _compared(before: Answers | None, after: Answers | None) -> str:
    if before is None or after is None:
        return "outputs unknown"
    return (
        f"mean entropy {after.entropy:.2g} nats for {before.entropy:.2g}, of all predictions "
        f"together {after.spread:.2f} for {before.spread:.2f}"
    )


def staleness(
    measured: Measurement, model: nn.Module, *, samples: int, size: int
) -> Staleness | None:
    """How far T is from R, against what the model's own momentum allows."""
    modules = dict(model.named_modules())
    momentum = {}
    for layer in measured.layers:
        value = getattr(modules.get(layer.key.name), "momentum", None)
        if isinstance(value, float) and 0.0 < value <= 1.0:
            momentum[layer.key.name] = value
    return staleness_of(measured.layers, momentum, samples=samples, batch_size=size)


def _alike(judge: Judge, outputs: Sequence[Tensor], data: str) -> bool:
    """Whether no figure tells two repairs apart beyond noise."""
    scores = judge.compare(outputs[1], outputs[0], data)
    return not any(is_better(score) or is_worse(score) for score in scores)


def _rank(scores: Sequence[Score]) -> tuple[float, float]:
    loss = next((each for each in scores if each.name == "loss"), None)
    return scores[0].after, 0.0 if loss is None else -loss.after


def _rises(scores: Sequence[Score]) -> bool:
    """The decisive figure rises beyond noise."""
    return is_better(scores[0])


def _is_gain(scores: Sequence[Score]) -> bool:
    """The decisive figure rises beyond noise; or it does not fall and the loss falls beyond it."""
    first, *others = scores
    if is_better(first):
        return True
    return first.after >= first.before and any(
        each.name == "loss" and is_better(each) for each in others
    )


def _told(ranked: Sequence[str], scores: Mapping[str, Sequence[Score]]) -> str:
    first = scores[ranked[0]][0]
    parts = [f"{name} {_shown(scores[name][0].after, first.name)}" for name in ranked]
    return f"{', '.join(parts)}, as it is {_shown(first.before, first.name)} {first.name}"


def _shown(value: float, name: str) -> str:
    return f"{100 * value:.1f} %" if name == "accuracy" else f"{value:.4g}"
