"""Inline SVG by matplotlib: lines and marks; the words are put on it by :mod:`.figures`.

matplotlib is given numbers and never a name, so that nothing a checkpoint holds is laid out,
looked up in a font or read as mathematics. The same figures give the same bytes: no date, ids by a
salt, and the style of the library's defaults whatever the user's own settings are.

Colours are stand-ins that become variables of the page's style sheet, or a figure could not follow
a dark screen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from varshift_cli.errors import ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Mapping[str, str] = {
    name: f"#0101{index:02x}"
    for index, name in enumerate(
        (
            "ink",
            "faint",
            "line",
            "gate",
            "fine",
            "mild",
            "strong",
            "severe",
            "stale",
            "batch",
            "dropout",
            "inherited",
        ),
        start=1,
    )
}
"""Names of the style sheet's variables, each with its stand-in."""

UNIT = 72.0
"""SVG units per inch."""


def require_matplotlib() -> None:
    """Make sure that figures can be drawn.

    Raises:
        ReportError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise ReportError(
            "the HTML report needs matplotlib for its figures, and it is not installed",
            hint="pip install 'varshift[report]'",
        ) from error


@dataclass(frozen=True, slots=True)
class Canvas:
    """Size of a figure and of its axes, in SVG units; x runs over layers 0 to ``layers`` - 1."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    layers: int

    def x(self, index: float) -> float:
        """Where a layer stands, from the left."""
        inner = self.width - self.left - self.right
        return self.left + inner * (index + 0.5) / self.layers

    @property
    def step(self) -> float:
        """Distance between two layers."""
        return (self.width - self.left - self.right) / self.layers

    @property
    def floor(self) -> float:
        """Where the axes end, from the top."""
        return self.height - self.bottom


@dataclass(frozen=True, slots=True)
class Point:
    """One layer's shift with its interval and threshold, at its place in the network."""

    index: int
    shift: float
    low: float | None
    high: float | None
    colour: str
    """A name of :data:`COLOURS`."""
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Stack:
    """One layer's factors in ln, by name, and their sum."""

    index: int
    parts: Mapping[str, float]
    total: float | None


def shift_plot(points: Sequence[Point], canvas: Canvas, bounds: Sequence[float]) -> str:
    """Shift over the layers, as in the figures of Li et al., with intervals and threshold."""
    return _drawn(lambda axes: _shifts(axes, points, bounds), canvas, "shift")


def factor_plot(stacks: Sequence[Stack], canvas: Canvas) -> str:
    """The factors of each layer stacked in ln: below 1 downwards, above 1 upwards."""
    return _drawn(lambda axes: _stacks(axes, stacks), canvas, "factors")


def _shifts(axes: Axes, points: Sequence[Point], bounds: Sequence[float]) -> None:
    top = max([each.high or each.shift for each in points] + [bounds[0]])
    top = max([top, *(each.threshold for each in points if each.threshold is not None)])
    if top > _LOG:
        axes.set_yscale("log")
    axes.set_ylim(1 if top <= _LOG else 0.97, 1 + (top - 1) * 1.06)
    ticks = _ticks(1.0, top, even=top <= _LOG)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_yticks([], minor=True)
    for bound in bounds:
        axes.axhline(bound, color=COLOURS["faint"], linewidth=0.8, dashes=(1, 3), zorder=1)
    _gate(axes, points)
    every = {each.index: each.shift for each in points}
    line = [every.get(index, math.nan) for index in range(max(every) + 1)]
    axes.plot(range(len(line)), line, color=COLOURS["line"], linewidth=1, zorder=2)
    for colour in dict.fromkeys(each.colour for each in points):
        some = [each for each in points if each.colour == colour]
        spread = [
            (each.index, each.low, each.high)
            for each in some
            if each.low is not None and each.high is not None
        ]
        axes.vlines(
            [index for index, _, _ in spread],
            [low for _, low, _ in spread],
            [high for _, _, high in spread],
            color=COLOURS[colour],
            linewidth=1.6,
            zorder=3,
        )
        axes.scatter(
            [each.index for each in some],
            [each.shift for each in some],
            s=16,
            color=COLOURS[colour],
            zorder=4,
        )


def _gate(axes: Axes, points: Sequence[Point]) -> None:
    """The threshold of each layer: one line where all have the same."""
    gated = [(each.index, each.threshold) for each in points if each.threshold is not None]
    axes.hlines(
        [threshold for _, threshold in gated],
        [index - 0.5 for index, _ in gated],
        [index + 0.5 for index, _ in gated],
        color=COLOURS["gate"],
        linewidth=1.2,
        zorder=2,
    )


def _stacks(axes: Axes, stacks: Sequence[Stack]) -> None:
    from matplotlib.collections import PolyCollection

    ends = [0.0]
    pieces: dict[str, list[list[tuple[float, float]]]] = {}
    for each in stacks:
        up = down = 0.0
        for name, value in each.parts.items():
            base = up if value > 0 else down
            pieces.setdefault(name, []).append(_bar(each.index, base, base + value))
            up, down = (base + value, down) if value > 0 else (up, base + value)
        ends += [up, down]
    for name, bars in pieces.items():
        axes.add_collection(PolyCollection(bars, facecolors=COLOURS[name], edgecolors="none"))
    axes.axhline(0, color=COLOURS["line"], linewidth=1, zorder=2)
    known = [(each.index, each.total) for each in stacks if each.total is not None]
    axes.hlines(
        [total for _, total in known],
        [index - _HALF_BAR for index, _ in known],
        [index + _HALF_BAR for index, _ in known],
        color=COLOURS["ink"],
        linewidth=1.8,
        zorder=3,
    )
    low, high = min(ends), max(ends)
    margin = 0.06 * max(high - low, math.log(_LEAST_RANGE))
    axes.set_ylim(low - margin, high + margin)
    ticks = _ticks(math.exp(low - margin), math.exp(high + margin))
    axes.set_yticks([math.log(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])


def _bar(index: int, start: float, end: float) -> list[tuple[float, float]]:
    left, right = index - _HALF_BAR, index + _HALF_BAR
    return [(left, start), (right, start), (right, end), (left, end)]


_LOG = 12.0  # shifts beyond this are drawn on a logarithmic scale
_HALF_BAR = 0.38
_LEAST_RANGE = 1.2  # a figure of nothing but ones is still a figure
_MOST_TICKS = 8


def _ticks(low: float, high: float, *, even: bool = False) -> list[float]:
    """Round ratios within a range, few enough to be read.

    Args:
        low: The least value shown.
        high: The largest.
        even: For a linear scale: one distance between all.
    """
    if even or high < _NARROW * low:
        power = 10.0 ** math.floor(math.log10(high - low))
        for step in (power * part for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0)):
            first, last = math.ceil(low / step - _SLACK), math.floor(high / step + _SLACK)
            if last - first < _MOST_TICKS:
                return [round(step * each, 12) for each in range(first, last + 1)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [each for each in ticks if low * (1 - _SLACK) <= each <= high * (1 + _SLACK)]
        if len(ticks) <= _MOST_TICKS:
            return ticks
    return [float(f"1e{power}") for power in powers[:: math.ceil(len(powers) / _MOST_TICKS)]]


_NARROW = 2.0  # ranges below this ratio look linear
_SLACK = 1e-9


def _drawn(draw: Any, canvas: Canvas, name: str) -> str:
    """Draw on fresh axes in the default style, and return the bare ``svg`` element."""
    from matplotlib import style
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": name, "svg.fonttype": "none", "path.simplify": False}
    buffer = StringIO()
    with style.context(["default", settings]):
        figure = Figure(figsize=(canvas.width / UNIT, canvas.height / UNIT), dpi=UNIT)
        axes = figure.add_axes(
            (
                canvas.left / canvas.width,
                canvas.bottom / canvas.height,
                1 - (canvas.left + canvas.right) / canvas.width,
                1 - (canvas.top + canvas.bottom) / canvas.height,
            )
        )
        draw(axes)
        _dress(axes, canvas)
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    return _bare(buffer.getvalue(), name)


def _dress(axes: Axes, canvas: Canvas) -> None:
    axes.set_xlim(-0.5, canvas.layers - 0.5)
    axes.set_xticks([])
    axes.tick_params(axis="y", which="both", colors=COLOURS["ink"], labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(COLOURS["line"])


def _bare(svg: str, name: str) -> str:
    """The element alone, its ids made unlike those of other figures, colours made variables."""
    element = svg[svg.index("<svg") :].strip()
    element = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", element)
    element = re.sub(r' xmlns(:\w+)?="[^"]*"', "", element).replace("xlink:href", "href")
    element = re.sub(r' (width|height)="[\d.]+pt"', "", element, count=2)
    for variable, stand_in in COLOURS.items():
        element = element.replace(stand_in, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", element)
