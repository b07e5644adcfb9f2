"""The sections of the page that are words: verdict, effect, findings, remedies, provenance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from varshift_cli.causes import CATALOGUE
from varshift_cli.records import (
    Describe,
    DropoutRecord,
    Finding,
    FindingLevel,
    Level,
    RegimeScores,
    Remedy,
    Report,
    Status,
)
from varshift_cli.report.markup import html_text, shortened
from varshift_cli.report.provenance import provenance as measured_with
from varshift_cli.report.remedies import shift_left
from varshift_cli.report.singles import Single, single_dropouts
from varshift_cli.report.text import count, layer_name, percent, ratio, visible
from varshift_cli.report.wording import (
    cleared_suspects,
    gate_remarks,
    has_faults,
    has_no_dropout,
    judgement,
)

_MOST_TITLE = 200  # characters of a path above the page; provenance has all
_MOST_EVIDENCE = 2000  # characters of one piece of evidence


def header(report: Report) -> str:
    """The checkpoint's name and the verdict."""
    said = judgement(report)
    kind = _KINDS.get(said.word, said.word.lower())
    model = shortened(visible(report.checkpoint.path or "model in memory"), _MOST_TITLE)
    remarks = "".join(f"<p>{html_text(each)}</p>\n" for each in gate_remarks(report))
    data = shortened(visible(report.calibration.data or "data in memory"), _MOST_TITLE)
    about = f"varshift, measured on {data}"
    return (
        f'<header class="{kind}"><p class="about">{html_text(about)}</p>\n'
        f"<h1>{html_text(model)}</h1>\n"
        f'<p class="verdict"><strong>{html_text(said.word)}</strong> '
        f"{html_text(said.sentence)}</p>\n{remarks}</header>\n"
    )


_KINDS = {
    "PASS": "fine",
    "FAIL": "severe",
    "INCONCLUSIVE": "strong",
    "UNCHECKED": "strong",
    "UNKNOWN": "strong",
}


def effect(report: Report) -> str:
    """What recalibration changes, in large figures, and how many layers are how bad."""
    tiles = [*_effect_tiles(report), *_level_tiles(report)]
    shown = "".join(
        f"<div><dt>{html_text(name)}</dt><dd>{html_text(value)}</dd>"
        f"<dd>{html_text(about)}</dd></div>\n"
        for name, value, about in tiles
    )
    return (
        '<section id="effect"><h2>Effect</h2>\n'
        f'<dl class="tiles">\n{shown}</dl>\n{_on_what(report)}</section>\n'
    )


def _on_what(report: Report) -> str:
    """What the figures hold for; without labels, that they may be for the worse."""
    if report.effect is None:
        reason = report.unknown.get("effect")
        return f"<p>The effect is unknown: {html_text(reason)}.</p>\n" if reason else ""
    on = f"On these {count(report.calibration.samples, 'sample')}."
    if report.effect.accuracy is report.effect.r2 is report.effect.metric is None:
        on += " Whether for the better, only labels tell."
    return f'<p class="about">{on}</p>\n'


def _effect_tiles(report: Report) -> Iterable[tuple[str, str, str]]:
    measured = report.effect
    if measured is None:
        return
    train = "in train()" if has_no_dropout(report) else "with dropout on"
    if measured.accuracy is not None:
        yield ("accuracy in eval()", *_scores(measured.accuracy, percent, train))
    if measured.r2 is not None:
        yield ("R2 in eval()", *_scores(measured.r2, "{:.3f}".format, train))
    if measured.loss is not None:
        name = "loss in eval(), nats" if measured.r2 is None else "mean squared error in eval()"
        shown = "{:.3f}" if measured.r2 is None else "{:.3g}"
        yield (name, *_scores(measured.loss, shown.format, train))
    if measured.changed_predictions is not None:
        kl = "" if measured.kl is None else f"mean KL {measured.kl:.2g} nats"
        yield "predictions that change", percent(measured.changed_predictions), kl
    elif measured.relative_l2 is not None:
        yield "outputs move by", percent(measured.relative_l2), "relative L2"


def _scores(scores: RegimeScores, shown: Any, train: str) -> tuple[str, str]:
    values = [scores.eval, scores.recalibrated]
    arrow = " \N{RIGHTWARDS ARROW} ".join("?" if each is None else shown(each) for each in values)
    trained = "" if scores.train is None else f", {shown(scores.train)} {train}"
    return arrow, f"as it is, recalibrated{trained}"


def _level_tiles(report: Report) -> Iterable[tuple[str, str, str]]:
    tally = Counter(each.level for each in report.layers)
    worse = [level for level in reversed(Level) if tally[level] and level is not Level.FINE]
    told = ", ".join(f"{tally[level]} {level.value}" for level in worse) or "none above fine"
    yield (
        "BatchNorm layers",
        f"{sum(tally[level] for level in worse)} of {len(report.layers)} off",
        told,
    )
    if report.buffers.describe is not Describe.UNKNOWN:
        on = "on" if report.buffers.describe is Describe.TRAIN else "off"
        slope, error = report.buffers.slope, report.buffers.slope_se
        told = "" if slope is None else f"slope {slope:.2f}"
        told += "" if error is None else f" \N{PLUS-MINUS SIGN} {error:.2g}"
        yield "buffers describe", f"dropout {on}", told


def findings(report: Report) -> str:
    """Why, with what speaks for it, what else it could be, and what to do."""
    told = "".join(_finding(each, report.remedies.get(each.code, ())) for each in report.findings)
    title = "Why, and what to do" if has_faults(report) else "Findings"
    nothing = "" if report.findings else "<p>No cause of a shift was found.</p>\n"
    cleared = _paragraphs("Not why" if has_faults(report) else "Checked", cleared_suspects(report))
    notes = _paragraphs("Notes", report.notes)
    return f'<section id="findings"><h2>{title}</h2>\n{told}{nothing}{cleared}{notes}</section>\n'


def _paragraphs(title: str, sentences: Sequence[str]) -> str:
    shown = "".join(f"<p>{html_text(each)}</p>\n" for each in sentences)
    return f"<h3>{title}</h3>\n{shown}" if shown else ""


def _finding(finding: Finding, remedies: Sequence[Remedy]) -> str:
    cause = CATALOGUE.get(finding.code)
    short = "" if cause is None else f"<p>{html_text(cause.short)}</p>\n"
    loud = {FindingLevel.ERROR: "severe", FindingLevel.WARNING: "strong"}.get(finding.level, "fine")
    title = "" if cause is None else f" {cause.title}"
    return (
        f'<article class="{loud}">'
        f"<h3><code>{html_text(finding.code)}</code>{html_text(title)}</h3>\n"
        f"<p>{html_text(finding.message)}</p>\n{short}{_remedies(remedies)}"
        f"{_rivals(finding.rivals)}{_evidence(finding)}</article>\n"
    )


def _remedies(remedies: Sequence[Remedy]) -> str:
    if not remedies:
        return ""
    return f'<h4>What to do</h4>\n<ol class="remedies">\n{"".join(map(_remedy, remedies))}</ol>\n'


def _remedy(remedy: Remedy) -> str:
    how = html_text(remedy.how)
    how = f"<code>{how}</code>" if remedy.how.startswith("varshift ") else how
    training = ' <span class="tag">needs training</span>' if remedy.needs_training else ""
    left = shift_left(remedy)
    left = f"<br>{html_text(left)}" if left else ""
    return f"<li>{html_text(remedy.title)}{training}<br>{how}{left}</li>\n"


def _rivals(rivals: Sequence[str]) -> str:
    items = "".join(f"<li>{html_text(each)}</li>\n" for each in rivals)
    return f"<h4>What else it could be</h4>\n<ul>\n{items}</ul>\n" if items else ""


def _evidence(finding: Finding) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html_text(name.replace("_", " "))}</th>'
        f"<td><code>{html_text(_value(value))}</code></td></tr>\n"
        for name, value in finding.evidence.items()
    )
    table = f'<div class="wide"><table>\n<tbody>\n{rows}</tbody></table></div>\n' if rows else ""
    names = "".join(
        f"<li><code>{html_text(layer_name(each))}</code></li>\n" for each in finding.layers
    )
    layers = f'<ul class="names">\n{names}</ul>\n' if names else ""
    if not table and not layers:
        return ""
    number = count(len(finding.layers), "layer")
    return f"<details><summary>Evidence, {number}</summary>\n{table}{layers}</details>\n"


def _value(value: object) -> str:
    if isinstance(value, float):
        return ratio(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(visible(text), _MOST_EVIDENCE)


def dropouts(report: Report) -> str:
    """Every dropout, where it is called and what it reaches; and what each does by itself."""
    if not report.dropouts:
        return ""
    called = _folded(
        count(len(report.dropouts), "dropout"),
        ("dropout", "kind", "p", "called at", "reaches"),
        map(_dropout, report.dropouts),
    )
    alone = _folded(
        "What each does by itself: variance without over variance with it",
        ("layer", "dropout", "reaches it", "alone", "by formula", "remark"),
        map(_single, single_dropouts(report)),
    )
    return f'<section id="dropouts"><h2>Dropout</h2>\n{called}{alone}</section>\n'


def _folded(title: str, head: Sequence[str], rows: Iterable[str]) -> str:
    """A table to be unfolded; nothing without rows."""
    body = "".join(rows)
    cells = "".join(f'<th scope="col">{each}</th>' for each in head)
    table = f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}</tbody></table>"
    folded = f'<details><summary>{title}</summary>\n<div class="wide">{table}</div></details>\n'
    return folded if body else ""


def _single(each: Single) -> str:
    figures = "".join(
        f'<td class="number">{"" if value is None else ratio(value)}</td>'
        for value in (each.alone, each.predicted)
    )
    return (
        f"<tr><td><code>{html_text(each.layer)}</code></td>"
        f"<td><code>{html_text(each.dropout)}</code></td><td>{each.reach}</td>{figures}"
        f"<td>{html_text(each.remark)}</td></tr>\n"
    )


def _dropout(dropout: DropoutRecord) -> str:
    p = "" if dropout.p is None else f"{dropout.p:g}"
    return (
        f"<tr><td><code>{html_text(dropout.name)}</code></td><td>{html_text(dropout.kind)}</td>"
        f'<td class="number">{p}</td><td>{html_text(dropout.location or "")}</td>'
        f"<td>{_names(dropout.reaches)}</td></tr>\n"
    )


def _names(names: Sequence[str]) -> str:
    return (
        ", ".join(f"<code>{html_text(layer_name(each))}</code>" for each in names) or "no BatchNorm"
    )


def skipped(report: Report) -> str:
    """The layers that were not measured, and why."""
    if not report.skipped:
        return ""
    items = "".join(
        f"<li><code>{html_text(layer_name(each.name))}</code>: {html_text(each.reason)}</li>\n"
        for each in report.skipped
    )
    return f'<section id="skipped"><h2>Not measured</h2>\n<ul>\n{items}</ul></section>\n'


def provenance(report: Report) -> str:
    """What was measured, with what, and which figures are unknown."""
    pairs = [*measured_with(report), *_gate(report)]
    rows = _pairs(dict(pairs))
    unknown = _pairs(report.unknown)
    more = (
        f"<details><summary>{count(len(report.unknown), 'unknown figure')}</summary>\n{unknown}"
        "</details>\n"
        if report.unknown
        else ""
    )
    return f'<section id="provenance"><h2>Provenance</h2>\n{rows}{more}</section>\n'


def _gate(report: Report) -> Iterable[tuple[str, str]]:
    verdict = report.verdict
    if verdict.status is not Status.NOT_GATED:
        yield "verdict", verdict.status.value
        if verdict.threshold is not None:
            yield "threshold", f"{verdict.threshold:g}"
    if verdict.baseline is not None:
        yield "baseline", verdict.baseline.source or "in memory"


def _pairs(pairs: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html_text(name)}</th><td>{html_text(value)}</td></tr>\n'
        for name, value in pairs.items()
    )
    return f'<div class="wide"><table class="pairs">\n<tbody>\n{rows}</tbody></table></div>\n'
