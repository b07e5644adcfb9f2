"""Bars of the layer table: a linear scale from 1.0, the same on every screen."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from varshift_cli.records import Level

COLOURS = {
    Level.FINE: "green",
    Level.MILD: "yellow",
    Level.STRONG: "dark_orange",
    Level.SEVERE: "bold red",
}

_TICKS = (1.25, 2.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """How shifts become lengths: ``per_unit`` cells for every 1.0 above 1, ``cells`` in all."""

    per_unit: int
    cells: int
    ascii_only: bool = False

    @property
    def width(self) -> int:
        """Cells of a drawn bar, its axis included."""
        return self.cells + 1 if self.cells else 0

    def header(self) -> Text:
        """The axis with a label at each tick that has room for one."""
        if not self.cells:
            return Text()
        line = "1.0".ljust(self.cells)
        for tick in _TICKS:
            at, label = self._cell(tick), f"{tick:g}" if tick % 1 else f"{tick:.1f}"
            if line[at - 1] == " " and at + len(label) <= self.cells:
                line = line[:at] + label + line[at + len(label) :]
        return Text(self._axis + line, "dim")

    def bar(self, shift: float, level: Level) -> Text:
        """One bar; an arrow ends those that leave the scale."""
        if not self.cells:
            return Text()
        body = self._body((shift - 1) * self.per_unit)
        rest = [" "] * (self.cells - len(body))
        for tick in _TICKS:
            if self._cell(tick) >= len(body):
                rest[self._cell(tick) - len(body)] = "." if self.ascii_only else "·"
        return Text.assemble((self._axis, "dim"), (body, COLOURS[level]), ("".join(rest), "dim"))

    def _body(self, length: float) -> str:
        line, half, arrow = ("#", "#", ">") if self.ascii_only else ("━", "╸", "▶")
        if length > self.cells:
            return line * (self.cells - 1) + arrow
        whole, halves = divmod(round(max(length, 0.0) * 2), 2)
        return line * whole + half * halves

    def _cell(self, ratio: float) -> int:
        return round((ratio - 1) * self.per_unit)

    @property
    def _axis(self) -> str:
        return "|" if self.ascii_only else "│"


SCALES = (
    Scale(per_unit=16, cells=24),
    Scale(per_unit=8, cells=12),
    Scale(per_unit=4, cells=6),
    Scale(per_unit=0, cells=0),
)
"""Widest first, none at last; the widest that leaves every row on one line is taken."""
