"""What the screens of several commands say in the same form, each line behind a common label."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from varshift_cli.records import LEVEL_BOUNDS, Finding, FindingLevel, Level, Skipped
from varshift_cli.report.screen import Style, block, blocks, pairs
from varshift_cli.report.text import layer_name, visible
from varshift_cli.report.wording import rivals

GUTTER = 10
BOUND = LEVEL_BOUNDS[Level.MILD]
"""The largest ``shift`` that a gate is advised to allow."""

_COLOURS = {
    FindingLevel.ERROR: "bold red",
    FindingLevel.WARNING: "bold",
    FindingLevel.NOTE: "dim",
}


def finding_lines(label: str, findings: Sequence[Finding], style: Style) -> list[Text]:
    """Each finding by its code and message, what else would look the same below it, indented."""
    lines: list[Text] = []
    for finding in findings:
        code = (visible(finding.code), _COLOURS[finding.level])
        body = Text.assemble(code, " ", visible(finding.message))
        lines += block("" if lines else label, body, style, gutter=GUTTER)
        for rival in rivals(finding):
            indent = GUTTER + len(finding.code) + 1
            lines += block("", Text(visible(rival), "dim"), style, gutter=indent)
    return lines


def skipped_lines(
    label: str, skipped: Sequence[Skipped], style: Style, *, gutter: int = GUTTER
) -> list[Text]:
    """The layers that were left out, and why."""
    bodies = [Text(f"{layer_name(each.name)}: {visible(each.reason)}", "dim") for each in skipped]
    return blocks(label, bodies, style, gutter=gutter)


def note_lines(
    label: str, notes: Sequence[str], style: Style, *, gutter: int = GUTTER, colour: str = "dim"
) -> list[Text]:
    """What opening the files, or the work on them, brought up."""
    return blocks(label, [Text(visible(each), colour) for each in notes], style, gutter=gutter)


def next_lines(commands: Sequence[tuple[str, str]], style: Style) -> list[Text]:
    """Commands to run next, each with what it does."""
    rows = [("" if index else "next", *command) for index, command in enumerate(commands)]
    return pairs(rows, style, gutter=GUTTER, remark_style="dim")


def gate_command(scan: str, *, passes: bool, more: str = "") -> tuple[str, str]:
    """The gate to set up for a scan, and what for: one that the network passes today.

    Args:
        scan: The command that measures.
        passes: Whether no layer exceeds :data:`BOUND`, chance included.
        more: Options that the threshold needs beside it.
    """
    if passes:
        return f"{scan} --max-shift {BOUND:g}{more}", "in CI, so that it stays so"
    return f"{scan} --report base.json", "later scans with --baseline base.json, in CI"
