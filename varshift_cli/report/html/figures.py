"""The two figures: shift and factors over the layers, in execution order.

Over each layer lies an invisible strip that tells its figures on hover and leads to its row in the
table; the names below are text of the page, escaped like all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from varshift_cli.records import LEVEL_BOUNDS, LayerRecord, Level, Report
from varshift_cli.report.html.plots import Canvas, Point, Stack, factor_plot, shift_plot
from varshift_cli.report.judged import JudgedLayer, judged_layers
from varshift_cli.report.markup import html_text, shortened

FACTORS = ("stale", "batch", "dropout", "inherited")

_WIDTH = 960.0
_HEIGHT = 260.0
_STEP = 11.0  # least distance between two layers, or their names would overlap
_MOST_LN = 60.0  # a factor of e^60 and one beyond it look alike
_NARROW_STEP = 5.0
_MOST_NAMED = 120  # layers; with more, numbers stand below
_MOST_NAME = 30  # characters
_LETTER = 5.2  # width of a letter below the axis


def figures(report: Report) -> str:
    """Both figures with their captions; a sentence if no layer was measured."""
    judged = judged_layers(report)
    points = [_point(index, each) for index, each in enumerate(judged)]
    known = [each for each in points if each is not None]
    if not known:
        return "<section><h2>Shift</h2><p>No layer was measured.</p></section>\n"
    canvas = _canvas(judged)
    shifts = _on(shift_plot(known, canvas, tuple(LEVEL_BOUNDS.values())), canvas, judged)
    stacks = [_stack(index, each.layer) for index, each in enumerate(judged)]
    factors = _on(factor_plot(stacks, canvas), canvas, judged)
    return _section("shift", "Shift of each layer", shifts, _shift_caption(known)) + _section(
        "factors", "What the shift is made of", factors, _factor_caption(stacks)
    )


def _canvas(judged: Sequence[JudgedLayer]) -> Canvas:
    layers = len(judged)
    letters = max(len(text) for text in _labels(judged))
    return Canvas(
        width=max(_WIDTH, layers * (_STEP if layers <= _MOST_NAMED else _NARROW_STEP) + 60),
        height=_HEIGHT + letters * _LETTER,
        left=44,
        right=12,
        top=12,
        bottom=16 + letters * _LETTER,
        layers=layers,
    )


def _labels(judged: Sequence[JudgedLayer]) -> list[str]:
    """What stands below each layer."""
    if len(judged) <= _MOST_NAMED:
        return [shortened(each.label, _MOST_NAME) for each in judged]
    return [str(index + 1) if (index + 1) % 10 == 0 else "" for index in range(len(judged))]


def _point(index: int, judged: JudgedLayer) -> Point | None:
    layer, spread = judged.layer, judged.layer.shift_interval
    if layer.shift is None or layer.level is None:
        return None
    low, high = (None, None) if spread is None else (spread.low, spread.high)
    return Point(index, layer.shift, low, high, layer.level.value, judged.threshold)


def _stack(index: int, layer: LayerRecord) -> Stack:
    values = {name: getattr(layer.factors, name) for name in FACTORS}
    logs = {name: _ln(value) for name, value in values.items() if value and value > 0}
    total = _ln(layer.signed) if layer.signed and layer.signed > 0 and logs else None
    return Stack(index, logs, total)


def _ln(value: float) -> float:
    """The logarithm, within what a figure can show."""
    return max(-_MOST_LN, min(_MOST_LN, math.log(value)))


def _on(svg: str, canvas: Canvas, judged: Sequence[JudgedLayer]) -> str:
    """The drawing with names below and a strip for each layer above it."""
    parts = []
    for index, (each, label) in enumerate(zip(judged, _labels(judged), strict=True)):
        x = canvas.x(index)
        told = html_text(f"{each.label}: {each.sentence}")
        name = _name(label, x, canvas) if label else ""
        parts.append(
            f'<a href="#layer-{index + 1}"><title>{told}</title>'
            f'<rect class="strip" x="{x - canvas.step / 2:.1f}" y="{canvas.top:g}" '
            f'width="{canvas.step:.1f}" height="{canvas.height - canvas.top:.1f}"/>{name}</a>\n'
        )
    wide = f'<svg style="width: {canvas.width:g}px" ' if canvas.width > _WIDTH else "<svg "
    return svg.replace("<svg ", wide, 1).removesuffix("</svg>") + "".join(parts) + "</svg>"


def _name(label: str, x: float, canvas: Canvas) -> str:
    y = canvas.floor + 6
    return (
        f'<text class="name" text-anchor="end" x="{x:.1f}" y="{y:.1f}" '
        f'transform="rotate(-90 {x:.1f} {y:.1f})" dy="3">{html_text(label)}</text>'
    )


@dataclass(frozen=True, slots=True)
class _Key:
    colour: str
    words: str


def _section(name: str, title: str, svg: str, caption: str) -> str:
    return (
        f'<section id="{name}"><h2>{title}</h2>\n<figure>\n{caption}\n'
        f'<div class="wide">\n{svg}\n</div>\n</figure></section>\n'
    )


def _shift_caption(points: Sequence[Point]) -> str:
    levels = [level for level in Level if any(each.colour == level.value for each in points)]
    keys = [_Key(level.value, level.value) for level in levels]
    if any(each.threshold is not None for each in points):
        keys.append(_Key("gate", "threshold"))
    bounds = ", ".join(f"{bound:g}" for bound in LEVEL_BOUNDS.values())
    return _caption(
        "Variance at inference against BatchNorm's running variance, over the layers in execution "
        f"order; 1 is no shift. Bars are 95 % intervals; dotted lines at {bounds} part the levels.",
        keys,
    )


def _factor_caption(stacks: Sequence[Stack]) -> str:
    names = [name for name in FACTORS if any(name in each.parts for each in stacks)]
    keys = [_Key(name, name) for name in names]
    return _caption(
        "The factors whose product is the ratio of variances, on a logarithmic scale: above 1 the "
        "variance is larger than BatchNorm expects, below 1 smaller. The dark line is the product.",
        [*keys, _Key("ink", "product")],
    )


def _caption(text: str, keys: Sequence[_Key]) -> str:
    shown = "".join(
        f'<span class="key"><span class="swatch {key.colour}"></span>{key.words}</span>'
        for key in keys
    )
    return f"<figcaption>{text} {shown}</figcaption>"
