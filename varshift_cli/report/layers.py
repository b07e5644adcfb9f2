"""The layer table: name, shift, interval, bar, cause, and what feeds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from varshift_cli.records import LayerRecord, Level, Report
from varshift_cli.report.bars import COLOURS, SCALES, Scale
from varshift_cli.report.screen import GAP, Style, columns
from varshift_cli.report.text import count, interval, layer_name, ratio, visible

MOST = 12
"""Layers shown unless all are asked for."""

_FEEDERS = 2  # dropouts named per layer; the rest are counted
_NEARLY_ALL = 0.8  # share from which one dropout is named alone
_COUNTS = 0.1  # of the largest share: smaller ones are not counted
_LEAST_FED = 16  # a narrower last column would break every dropout's name
_MOST_NAME = 3  # names take at most a third of a terminal before they are folded


@dataclass(frozen=True, slots=True)
class _Row:
    name: Text
    shift: Text
    interval: Text
    layer: LayerRecord
    cause: Text
    fed_by: Text


def chosen(report: Report, *, all_layers: bool, order: str) -> list[LayerRecord]:
    """The layers to show: the worst above *fine*, or all; by shift or in execution order."""
    layers = list(report.layers)
    if not all_layers:
        worst = sorted((each for each in layers if is_off(each)), key=by_shift)[:MOST]
        layers = [each for each in layers if any(each is bad for bad in worst)]
    return sorted(layers, key=by_shift) if order == "shift" else layers


def layer_table(report: Report, layers: Sequence[LayerRecord], style: Style) -> list[Text]:
    """The table as lines, headed; as wide as the style, or as its names."""
    if not layers:
        return []
    rows = _rows(report, layers)
    widths, scale = _fit(rows, style)
    head = ("layer", "shift", "95 %")
    header = [Text(each, "dim") for each in head]
    header += [scale.header(), Text("cause", "dim"), Text("fed by", "dim")]
    lines = columns(header, widths, fold=style.fold)
    for row in rows:
        cells = [row.name, row.shift, row.interval, _bar(row, scale), row.cause, row.fed_by]
        lines += columns(cells, widths, fold=style.fold)
    return lines


def rest_line(report: Report, shown: Sequence[LayerRecord]) -> str:
    """``33 more: 5 severe, 1 strong, 16 mild, 11 fine``; empty when all are shown."""
    calls = {(layer.name, layer.call) for layer in shown}
    rest = [layer for layer in report.layers if (layer.name, layer.call) not in calls]
    if not rest:
        return ""
    tally = Counter(layer.level for layer in rest)
    parts = [f"{tally[level]} {level.value}" for level in reversed(Level) if tally[level]]
    parts += [f"{tally[None]} not measured"] if tally[None] else []
    return f"{len(rest)} more: {', '.join(parts)}"


def is_off(layer: LayerRecord) -> bool:
    """Whether a layer is measured and worse than *fine*."""
    return layer.level not in {None, Level.FINE}


def by_shift(layer: LayerRecord) -> float:
    """Sorts the worst first."""
    return -(layer.shift or 0.0)


def _rows(report: Report, layers: Sequence[LayerRecord]) -> list[_Row]:
    calls = Counter(layer.name for layer in report.layers)
    reasons = reasons_unmeasured(report)
    return [
        _Row(
            name=Text(called(layer, calls)),
            shift=_shift(layer),
            interval=Text(interval(layer.shift_interval), "dim"),
            layer=layer,
            cause=Text(cause_words(layer)),
            fed_by=Text(reasons.get((layer.name, layer.call)) or fed_by(report, layer)),
        )
        for layer in layers
    ]


def reasons_unmeasured(report: Report) -> dict[tuple[str, int], str]:
    """Why a layer has no shift, for the layers that have none."""
    found = {}
    for index, layer in enumerate(report.layers):
        if layer.shift is None:
            reason = report.unknown.get(f"layers.{index}.shift", "")
            found[layer.name, layer.call] = visible(f"not measured: {reason}" if reason else "")
    return found


def called(layer: LayerRecord, calls: Mapping[str, int]) -> str:
    """The layer's name, with ``#2`` for the second call of one that is called again."""
    name = layer_name(layer.name)
    return f"{name}#{layer.call}" if calls[layer.name] > 1 else name


def _shift(layer: LayerRecord) -> Text:
    if layer.shift is None or layer.level is None:
        return Text("-", "dim")
    return Text(ratio(layer.shift), COLOURS[layer.level])


def _bar(row: _Row, scale: Scale) -> Text:
    if row.layer.shift is None or row.layer.level is None:
        return Text()
    return scale.bar(row.layer.shift, row.layer.level)


def cause_words(layer: LayerRecord) -> str:
    """The factor that is the cause, and its value: ``dropout   0.34``."""
    return _factor(layer, layer.cause.split(" x ")[0]) if layer.cause else ""


def _factor(layer: LayerRecord, name: str) -> str:
    value = getattr(layer.factors, name, None)
    return visible(name) if value is None else f"{name:<9} {ratio(value)}"


def fed_by(report: Report, layer: LayerRecord) -> str:
    """Where the cause comes from: the dropouts, the layers upstream, or the factor against it."""
    if layer.cause is None:
        return ""
    first, _, second = layer.cause.partition(" x ")
    if second:
        return f"x {' '.join(_factor(layer, second).split())}, cancelling"
    if first == "dropout":
        return _dropouts(report, layer)
    return _upstream(report, layer) if first == "inherited" else ""


def _dropouts(report: Report, layer: LayerRecord) -> str:
    """The dropouts behind the dropout factor: those wired to the layer, or by their shares."""
    shares = {each.name: abs(each.share) for each in layer.attribution or ()}
    names = sorted((each.name for each in layer.dropouts), key=lambda name: -shares.get(name, 0.0))
    first = max(shares, key=lambda name: shares[name], default=None)
    if first is not None and first not in names[:1]:
        return _mostly(report, first, shares)
    if first is not None and shares[first] >= _NEARLY_ALL * sum(shares.values()):
        return _dropout(report, first)
    if not names:
        return "dropout further up"
    lines = [_dropout(report, name) for name in names[:_FEEDERS]]
    if len(names) > _FEEDERS:
        lines.append(f"and {len(names) - _FEEDERS} more")
    return "\n".join(lines)


def _mostly(report: Report, first: str, shares: Mapping[str, float]) -> str:
    """``3 dropouts: body.1.drop 60 %``: who does most of it, where the wiring does not tell."""
    part = shares[first] / sum(shares.values()) if shares[first] else 0.0
    if part >= _NEARLY_ALL:
        return _dropout(report, first)
    many = sum(share >= _COUNTS * shares[first] for share in shares.values())
    return f"{count(many, 'dropout')}: {visible(first)} {100 * part:.0f} %"


def _dropout(report: Report, name: str) -> str:
    places = {each.name: each.location for each in report.dropouts}
    return f"{visible(name)} {visible(places.get(name) or '')}".rstrip()


def _upstream(report: Report, layer: LayerRecord) -> str:
    """How many layers above this one, by any number of steps, are off themselves."""
    records = {each.name: each for each in report.layers}
    seen: set[str] = set()
    waiting = list(layer.upstream)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in records:
            seen.add(name)
            waiting += records[name].upstream
    off = [name for name in records if name in seen and name != layer.name]
    off = [name for name in off if is_off(records[name])]
    if len(off) == 1:
        return layer_name(off[0])
    return f"{len(off)} layers upstream" if off else "layers upstream"


def _fit(rows: Sequence[_Row], style: Style) -> tuple[list[int], Scale]:
    """Column widths: the bars give way first; on a terminal then names and the last column fold."""
    name = max(_widest(each.name for each in rows), len("layer"))
    if style.fold:
        name = min(name, max(style.width // _MOST_NAME, _LEAST_FED))
    shift = max(_widest(each.shift for each in rows), len("shift"))
    spread = max(_widest(each.interval for each in rows), len("95 %"))
    cause = max(_widest(each.cause for each in rows), len("cause"))
    measured = (each.fed_by for each in rows if each.layer.shift is not None)  # else a sentence
    fed_by = max(_widest(measured), len("fed by"))
    left = style.width - sum((name, shift, spread, cause)) - 5 * GAP
    scale = next((each for each in SCALES if fed_by <= left - each.width), SCALES[-1])
    if style.fold:
        fed_by = min(fed_by, max(left - scale.width, _LEAST_FED))
    scale = replace(scale, ascii_only=style.ascii_only)
    return [name, shift, spread, scale.width, cause, fed_by], scale


def _widest(cells: Iterable[Text]) -> int:
    return max((line.cell_len for cell in cells for line in cell.split()), default=0)
