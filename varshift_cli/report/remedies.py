"""The remedies that were tried, in words: what shift each would leave, with today's weights."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import Remedy, Report
from varshift_cli.report.paragraphs import GUTTER
from varshift_cli.report.screen import Style, block
from varshift_cli.report.text import ratio, visible

_WITH_TRAINING = 2  # remedies that need training shown on the screen; the rest are counted


def tried(report: Report) -> tuple[Remedy, ...]:
    """The remedies of the first finding whose remedies were tried, best first."""
    for finding in report.findings:
        remedies = report.remedies.get(finding.code, ())
        if any(each.worst_shift is not None for each in remedies):
            return tuple(each for each in remedies if each.worst_shift is not None)
    return ()


def remedy_lines(report: Report, style: Style) -> list[Text]:
    """The block of the screen: those that need no training, then the best of those that do."""
    ranked = tried(report)
    if not ranked:
        return []
    trained = [each for each in ranked if each.needs_training]
    shown = [each for each in ranked if not each.needs_training] + trained[:_WITH_TRAINING]
    head = "the shift each would leave with today's weights, in the worst layer and in the mean"
    lines = block("Remedies", Text(head, "dim"), style, gutter=GUTTER)
    for each in shown:
        figures = f"{'':{GUTTER}}{_left(each)}  "
        lines += block(figures, Text(_named(each)), style, gutter=len(figures))
    rest = trained[_WITH_TRAINING:]
    if rest:
        lines += block("", Text(_rest(rest), "dim"), style, gutter=GUTTER)
    return lines


def shift_left(remedy: Remedy) -> str:
    """``leaves shift 1.05 (mean 1.02), with today's weights``; nothing if it was not tried."""
    if remedy.worst_shift is None or remedy.mean_shift is None:
        return ""
    basis = "" if remedy.basis is None else f" with {visible(remedy.basis)}"
    worst, mean = ratio(remedy.worst_shift), ratio(remedy.mean_shift)
    return f"leaves shift {worst} at worst, {mean} in the mean,{basis}".rstrip(",")


def _left(remedy: Remedy) -> str:
    return f"{ratio(remedy.worst_shift or 1.0):>4}  {ratio(remedy.mean_shift or 1.0):>4}"


def _named(remedy: Remedy) -> str:
    if remedy.needs_training:
        return f"{visible(remedy.title)}, and train again"
    return visible(remedy.title.partition(":")[0])


def _rest(remedies: Sequence[Remedy]) -> str:
    last = max(remedies, key=lambda each: each.worst_shift or 0.0)
    worst = f"{ratio(last.worst_shift or 1.0)} for {visible(last.title)}"
    return f"{len(remedies)} more, up to {worst}; JSON has all, with file and line"
