"""The remedies that were tried, in words: what shift each would leave, with today's weights.

Those that need training are told apart: a shift with today's weights ranks them among each other,
but eval() gains nothing by them before, and training makes other weights.
"""

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
    at_once = [each for each in ranked if not each.needs_training]
    trained = [each for each in ranked if each.needs_training]
    lines: list[Text] = []
    if at_once:
        lines += block("Remedies", Text(_AT_ONCE, "dim"), style, gutter=GUTTER)
        lines += _rows(at_once, style)
    if trained:
        head = Text(_BY_TRAINING, "dim")
        lines += block("" if at_once else "Remedies", head, style, gutter=GUTTER)
        lines += _rows(trained[:_WITH_TRAINING], style)
    rest = trained[_WITH_TRAINING:]
    if rest:
        lines += block("", Text(_rest(rest), "dim"), style, gutter=GUTTER)
    return lines


_AT_ONCE = "without training: the shift that each leaves, in the worst layer and in the mean"
_BY_TRAINING = (
    "by training again only: eval() is no better before; shifts are those of today's weights"
)


def _rows(remedies: Sequence[Remedy], style: Style) -> list[Text]:
    lines: list[Text] = []
    for each in remedies:
        figures = f"{'':{GUTTER}}{_left(each)}  "
        lines += block(figures, Text(_named(each)), style, gutter=len(figures))
    return lines


def shift_left(remedy: Remedy) -> str:
    """``leaves shift 1.05 at worst, 1.02 in the mean, with today's weights, 128 samples``.

    Nothing if it was not tried; what needs training leaves that shift only afterwards, if at all.
    """
    if remedy.worst_shift is None or remedy.mean_shift is None:
        return ""
    basis = "" if remedy.basis is None else f" with {visible(remedy.basis)}"
    worst, mean = ratio(remedy.worst_shift), ratio(remedy.mean_shift)
    told = f"shift {worst} at worst, {mean} in the mean,{basis}".rstrip(",")
    if remedy.needs_training:
        return f"{told}; eval() gains only by training again"
    return f"leaves {told}"


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
