"""The report as Markdown for a pull request's comment or a job's summary on GitHub.

A comment takes 65,536 characters, so what matters comes first, and the table of all layers is cut
where the room ends. All that comes from the checkpoint is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from varshift_cli.records import Finding, LayerRecord, Remedy, Report, Status
from varshift_cli.report.judged import JudgedLayer, judged_layers
from varshift_cli.report.layers import cause_words, chosen, fed_by, rest_line
from varshift_cli.report.markup import markdown_code, markdown_text, shortened
from varshift_cli.report.provenance import provenance
from varshift_cli.report.remedies import shift_left
from varshift_cli.report.singles import single_dropouts
from varshift_cli.report.text import count, interval, ratio, visible
from varshift_cli.report.wording import (
    cleared_suspects,
    effect_sentences,
    gate_remarks,
    has_faults,
    judgement,
    rivals,
)

LIMIT = 65_536
"""Characters that GitHub takes for a comment."""

_NAME = 100  # characters of a name that are shown; the JSON report has it whole
_SENTENCE = 500
_SIGNS = {"PASS": "✅ ", "FINE": "✅ ", "FAIL": "❌ ", "INCONCLUSIVE": "⚠️ ", "UNCHECKED": "⚠️ "}


def to_markdown(report: Report) -> str:
    """The report as Markdown of at most :data:`LIMIT` characters, ending in a newline."""
    page = _Page()
    page.add(_head(report))
    page.add_rows(_worst(report))
    page.add_items(_why(report))
    page.add_rows(_remedies(report))
    provenance = _details("What was measured, and how", _provenance(report))
    page.add_rows(_all_layers(report), folded=True, reserve=len(provenance))
    page.add_rows(_singles(report), folded=True, reserve=len(provenance))
    page.add(provenance)
    return page.text()


@dataclass(slots=True)
class _Page:
    """Blocks of Markdown as long as there is room."""

    blocks: list[str] = field(default_factory=list)
    used: int = 0

    def add(self, block: str) -> bool:
        """Put a block at the end, if it fits."""
        size = _size(block) + 1  # the empty line after it
        if not block or self.used + size > LIMIT - _RESERVE:
            return False
        self.blocks.append(block)
        self.used += size
        return True

    def add_items(self, items: Sequence[str]) -> None:
        """A heading and a list; what does not fit is left out and told."""
        fitting = self._fitting(items, 0)
        left = len(items) - len(fitting)
        more = [f"- and {left} more, in the JSON report\n"] if left else []
        if len(fitting) > 1:
            self.add("".join([*fitting, *more]))

    def add_rows(self, table: _Table, *, folded: bool = False, reserve: int = 0) -> None:
        """A table, perhaps to be unfolded; rows that do not fit are left out and told."""
        if not table.rows:
            return
        rows = self._fitting(table.rows, reserve + _size(table.head) + 200)
        left = len(table.rows) - len(rows)
        after = table.after + (f"\nand {left} more, in the JSON report\n" if left else "")
        block = table.head + "".join(rows) + after
        self.add(_details(table.title, block) if folded else block)

    def text(self) -> str:
        """All blocks, an empty line between."""
        return "\n".join(self.blocks)

    def _fitting(self, parts: Sequence[str], reserve: int) -> list[str]:
        room = LIMIT - _RESERVE - self.used - reserve
        fitting = []
        for part in parts:
            room -= _size(part)
            if room < 0:
                break
            fitting.append(part)
        return fitting


_RESERVE = 400  # for the lines that tell what was left out


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    head: str
    rows: Sequence[str]
    after: str = ""


def _size(text: str) -> int:
    """Length as GitHub's database may count it: in UTF-16, where an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _head(report: Report) -> str:
    said = judgement(report)
    name = report.checkpoint.path or "model in memory"
    lines = [
        f"### {_SIGNS.get(said.word, '')}varshift: {said.word}, {_name(name)}\n",
        f"**{_sentence(said.sentence)}**\n",
    ]
    lines += [f"{_sentence(each)}\n" for each in gate_remarks(report)]
    lines += [f"{_sentence(each)}\n" for each in effect_sentences(report)]
    return "\n".join(lines)


def _worst(report: Report) -> _Table:
    shown = chosen(report, all_layers=False, order="shift")
    by_call = {(each.layer.name, each.layer.call): each for each in judged_layers(report)}
    rows = [_worst_row(report, layer, by_call[layer.name, layer.call]) for layer in shown]
    rest = rest_line(report, shown)
    return _Table(
        "",
        _row("layer", "shift", "95 %", "cause", "fed by") + "|:--|--:|:--|:--|:--|\n",
        rows,
        f"\n{_sentence(rest)}\n" if rest else "",
    )


def _worst_row(report: Report, layer: LayerRecord, judged: JudgedLayer) -> str:
    return _row(
        _name(judged.label),
        "-" if layer.shift is None else f"**{ratio(layer.shift)}**",
        interval(layer.shift_interval),
        _sentence(" ".join(cause_words(layer).split())),
        _sentence(fed_by(report, layer).replace("\n", ", ")),
    )


def _why(report: Report) -> list[str]:
    label = "Why" if has_faults(report) else "Noted"
    items = [_finding(each) for each in report.findings]
    cleared = cleared_suspects(report)
    if cleared:
        says = "Not why" if has_faults(report) else "Checked"
        items.append(f"- {says}: {_sentence('; '.join(cleared))}\n")
    items += [f"- Note: {_sentence(each)}\n" for each in report.notes]
    return [f"**{label}**\n\n", *items] if items else []


def _finding(finding: Finding) -> str:
    others = "".join(f"  - {_sentence(each)}\n" for each in rivals(finding))
    return f"- **{_sentence(finding.code)}** {_sentence(finding.message)}\n{others}"


def _remedies(report: Report) -> _Table:
    """Each remedy once, with the codes that it is for and what it would leave, if it was tried.

    What needs no training comes first, whatever it is for.
    """
    codes: dict[Remedy, list[str]] = {}
    for code, remedies in report.remedies.items():
        for remedy in remedies:
            codes.setdefault(remedy, []).append(code)
    ordered = sorted(codes, key=lambda remedy: remedy.needs_training)
    tried = any(map(shift_left, codes))
    head = ["what to do", "for", "how", *(["tried"] if tried else [])]
    return _Table(
        "",
        _row(*head) + f"|{':--|' * len(head)}\n",
        [_remedy(remedy, codes[remedy], tried=tried) for remedy in ordered],
    )


def _remedy(remedy: Remedy, codes: Sequence[str], *, tried: bool) -> str:
    how = _command(remedy.how) if remedy.how.startswith("varshift ") else _sentence(remedy.how)
    training = ", *then train again*" if remedy.needs_training else ""
    cells = [_sentence(remedy.title) + training, _sentence(", ".join(codes)), how]
    return _row(*cells, *([_sentence(shift_left(remedy))] if tried else []))


def _all_layers(report: Report) -> _Table:
    judged = judged_layers(report)
    gated = report.verdict.status is not Status.NOT_GATED
    head = ["layer", "shift", "95 %", "stale", "dropout", "inherited", "cause"]
    align = "|:--|--:|:--|--:|--:|--:|:--|"
    layers = count(len(judged), "layer")
    return _Table(
        f"All {layers}, in execution order",
        _row(*head, *(["gate"] if gated else [])) + align + (":--|\n" if gated else "\n"),
        [_full_row(each, gated=gated) for each in judged],
    )


def _full_row(judged: JudgedLayer, *, gated: bool) -> str:
    layer = judged.layer
    factors = (layer.factors.stale, layer.factors.dropout, layer.factors.inherited)
    cells = [
        _name(judged.label),
        "-" if layer.shift is None else ratio(layer.shift),
        interval(layer.shift_interval),
        *("-" if each is None else ratio(each) for each in factors),
        _sentence(layer.cause or judged.reason or ""),
    ]
    return _row(*cells, *([judged.outcome.value.replace("_", " ")] if gated else []))


def _singles(report: Report) -> _Table:
    rows = [
        _row(
            _name(each.layer),
            _name(each.dropout),
            each.reach,
            *("-" if value is None else ratio(value) for value in (each.alone, each.predicted)),
            _sentence(each.remark),
        )
        for each in single_dropouts(report)
    ]
    head = _row("layer", "dropout", "reaches it", "alone", "by formula", "")
    return _Table(
        "What each dropout does by itself: variance without over variance with it",
        head + "|:--|:--|:--|--:|--:|:--|\n",
        rows,
    )


def _provenance(report: Report) -> str:
    rows = [f"| {name} | {_name(value)} |\n" for name, value in provenance(report)]
    skipped = [
        f"- {_name(each.name or '(the model)')}: {_sentence(each.reason)}\n"
        for each in report.skipped[:_SKIPPED]
    ]
    more = len(report.skipped) - _SKIPPED
    left = [f"- and {more} more\n"] if more > 0 else []
    told = ["\nNot measured:\n\n", *skipped, *left] if skipped else []
    return "".join(["| | |\n|:--|:--|\n", *rows, *told])


_SKIPPED = 10


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n</details>\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _name(text: str) -> str:
    return markdown_code(shortened(visible(text), _NAME))


def _command(text: str) -> str:
    return markdown_code(shortened(visible(text), _SENTENCE))


def _sentence(text: str) -> str:
    return markdown_text(shortened(visible(text), _SENTENCE))
