"""The columns of the table of all layers: what each shows, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from varshift_cli.records import Interval, LayerRecord, Level, Report
from varshift_cli.report.judged import JudgedLayer
from varshift_cli.report.layers import cause_words, fed_by
from varshift_cli.report.markup import html_text
from varshift_cli.report.text import ratio

Cell = tuple[str, float | str | None]
"""What is shown, already escaped, and what it is sorted by; ``None`` comes last."""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer of a report, at its place from 1."""

    report: Report
    judged: JudgedLayer
    index: int

    @property
    def layer(self) -> LayerRecord:
        """The layer's own record."""
        return self.judged.layer


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    title: str
    about: str
    """What its figures are, shown on hover."""
    cell: Callable[[Row], Cell]
    is_number: bool = True
    is_more: bool = False
    """Hidden until all figures are asked for."""


def _number(read: Callable[[LayerRecord], float | None]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = read(row.layer)
        return ("", None) if value is None else (html_text(ratio(value)), value)

    return cell


def _whole(read: Callable[[LayerRecord], int | None]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = read(row.layer)
        return ("", None) if value is None else (str(value), value)

    return cell


def _factor(name: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = getattr(row.layer.factors, name)
        spread = getattr(row.layer.factor_intervals, name)
        if value is None:
            return "", None
        return f'<span title="95 %: {_range(spread) or "unknown"}">{ratio(value)}</span>', value

    return cell


def _position(row: Row) -> Cell:
    return str(row.index), row.index


def _name(row: Row) -> Cell:
    where = row.layer.location
    title = f' title="{html_text(where)}"' if where else ""
    return f"<code{title}>{html_text(row.judged.label)}</code>", row.judged.label


def _kind(row: Row) -> Cell:
    return html_text(row.layer.kind), row.layer.kind


def _shift(row: Row) -> Cell:
    shift, level = row.layer.shift, row.layer.level
    if shift is None or level is None:
        return "-", None
    return f'<strong class="{level.value}">{ratio(shift)}</strong>', shift


def _interval(row: Row) -> Cell:
    spread = row.layer.shift_interval
    return _range(spread), None if spread is None else spread.low


def _level(row: Row) -> Cell:
    level = row.layer.level
    if level is None:
        return "not measured", -1
    return f'<span class="level {level.value}">{level.value}</span>', list(Level).index(level)


def _cause(row: Row) -> Cell:
    shown = " ".join(cause_words(row.layer).split())
    return html_text(shown), row.layer.cause or ""


def _source(row: Row) -> Cell:
    told = fed_by(row.report, row.layer) if row.layer.shift is not None else row.judged.reason or ""
    return "<br>".join(html_text(line) for line in told.split("\n")), told


def _outcome(row: Row) -> Cell:
    outcome, threshold = row.judged.outcome.value, row.judged.threshold
    word = outcome.replace("_", " ")
    bound = "" if threshold is None else f"threshold {threshold:g}"
    title = html_text("; ".join(part for part in (bound, row.judged.reason or "") if part))
    return f'<span class="gate {outcome}" title="{title}">{word}</span>', word


def _range(spread: Interval | None) -> str:
    return "" if spread is None else f"{ratio(spread.low)}&ndash;{ratio(spread.high)}"


COLUMNS = (
    Column("#", "place in the forward", _position),
    Column("layer", "module path; #2 is a second call", _name, is_number=False),
    Column("kind", "class of the module", _kind, is_number=False, is_more=True),
    Column("features", "channels", _whole(lambda each: each.num_features), is_more=True),
    Column("shift", "mean over channels of |ln E/R|, as a ratio from 1", _shift),
    Column("95 %", "interval of the shift", _interval),
    Column("level", "fine, mild, strong, severe", _level, is_number=False),
    Column("gate", "what the gate said", _outcome, is_number=False),
    Column("stale", "T/R: the buffers against training", _factor("stale")),
    Column("batch", "T/T_batch: small training batches", _factor("batch")),
    Column("dropout", "C/T: dropout taken away", _factor("dropout")),
    Column("inherited", "E/C: what layers upstream pass on", _factor("inherited")),
    Column("signed", "E/R, the product of the factors", _number(lambda each: each.signed)),
    Column(
        "paper",
        "ratio of channel means, Li et al.",
        _number(lambda each: each.paper_ratio),
        is_more=True,
    ),
    Column(
        "median",
        "median of E/R over channels",
        _number(lambda each: each.median_ratio),
        is_more=True,
    ),
    Column(
        "worst channel",
        "E/R of the channel farthest from 1",
        _number(lambda each: each.worst_ratio),
        is_more=True,
    ),
    Column(
        "mean shift",
        "rms over channels of (mean E - running mean)/sd",
        _number(lambda each: each.mean_shift),
        is_more=True,
    ),
    Column(
        "dead",
        "channels without variance, left out",
        _whole(lambda each: each.dead_channels),
        is_more=True,
    ),
    Column("cause", "the factor that is farthest from 1", _cause, is_number=False),
    Column("fed by", "the dropouts or layers it comes from", _source, is_number=False),
)
