"""The formats a report can be written in, by name and by file suffix.

A new format is one function from a report to text, and its lines here. Its file is imported when
it is asked for, so that ``varshift check`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Generic, TypeVar

from varshift_cli.errors import ReportError
from varshift_cli.records import Report
from varshift_cli.report.json import fix_to_json, to_json
from varshift_cli.report.table import render_table

if TYPE_CHECKING:
    from varshift_cli.records import FixRecord

R = TypeVar("R")
"""What is rendered: a report, or what a fix did."""


def _always() -> None:
    """Nothing is needed."""


@dataclass(frozen=True, slots=True)
class Format(Generic[R]):
    """One way to write a report, or what a fix did."""

    name: str
    suffixes: tuple[str, ...]
    """File suffixes that choose this format, lower case, the first the usual one; none for what
    is for stdout alone."""
    render: Callable[[R], str]
    ready: Callable[[], None] = _always
    """Raises a :class:`ReportError` if something that rendering needs is not installed."""


def _markdown(report: Report) -> str:
    from varshift_cli.report.markdown import to_markdown

    return to_markdown(report)


def _github(report: Report) -> str:
    from varshift_cli.report.github import to_github

    return to_github(report)


def _junit(report: Report) -> str:
    from varshift_cli.report.junit import to_junit

    return to_junit(report)


def _sarif(report: Report) -> str:
    from varshift_cli.report.sarif import to_sarif

    return to_sarif(report)


def _html(report: Report) -> str:
    from varshift_cli.report.html import to_html

    return to_html(report)


def _html_ready() -> None:
    from varshift_cli.report.html import require_matplotlib

    require_matplotlib()


FORMATS: Mapping[str, Format[Report]] = {
    each.name: each
    for each in (
        Format("table", (".txt",), render_table),
        Format("json", (".json",), to_json),
        Format("markdown", (".md",), _markdown),
        Format("github", (), _github),
        Format("junit", (".xml",), _junit),
        Format("sarif", (".sarif",), _sarif),
        Format("html", (".html", ".htm"), _html, _html_ready),
    )
}


def _fix_table(record: FixRecord) -> str:
    from varshift_cli.report.fix import render_fix

    return render_fix(record)


FIX_FORMATS: Mapping[str, Format[FixRecord]] = {
    each.name: each
    for each in (Format("table", (".txt",), _fix_table), Format("json", (".json",), fix_to_json))
}
"""Those that what a fix did can be written in."""


def format_of(path: str) -> Format[Report]:
    """The format that a file's suffix asks for.

    Raises:
        ReportError: No format has this suffix; lists those there are.
    """
    return choose_format(path, FORMATS)


def choose_format(path: str, formats: Mapping[str, Format[R]]) -> Format[R]:
    """The one of some formats that a file's suffix asks for.

    Raises:
        ReportError: No format has this suffix; lists those there are.
    """
    suffix = PurePath(path).suffix.lower()
    for each in formats.values():
        if suffix in each.suffixes:
            return each
    known = ", ".join(
        f"{each.suffixes[0]} ({each.name})" for each in formats.values() if each.suffixes
    )
    found = f"the suffix {suffix}" if suffix else "no suffix"
    raise ReportError(
        f"{path}: the suffix of a report chooses its format, and this path has {found}",
        hint=f"known suffixes: {known}",
    )


def render(report: Report, format: str = "table") -> str:  # noqa: A002  as the option is called
    """The report in one of the formats, as ``varshift scan --format`` writes it.

    Args:
        report: What was found.
        format: Its name: ``table``, ``json``, ...

    Raises:
        ReportError: There is no such format; lists those there are.
    """
    if format not in FORMATS:
        raise ReportError(
            f"there is no format {format!r}", hint=f"formats are {', '.join(FORMATS)}"
        )
    return FORMATS[format].render(report)
