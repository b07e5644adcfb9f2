"""The page as a whole: policy, styles, script, and the sections in their order.

The page is complete without its script, which only sorts and filters. Its content security policy
allows this one script by its hash and no request at all, so that even a name that slipped through
the escaping could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from varshift_cli.records import Report
from varshift_cli.report.html import layers, sections
from varshift_cli.report.html.figures import figures
from varshift_cli.report.html.plots import require_matplotlib
from varshift_cli.report.markup import html_text
from varshift_cli.report.wording import judgement


def to_html(report: Report) -> str:
    """The report as one self-contained HTML file, ending in a newline.

    Raises:
        ReportError: matplotlib, which draws the figures, is not installed.
    """
    require_matplotlib()
    parts = (
        sections.header(report),
        sections.effect(report),
        figures(report),
        layers.table(report),
        sections.findings(report),
        sections.dropouts(report),
        sections.skipped(report),
        sections.provenance(report),
    )
    return "".join([_head(report), *parts, _foot(report)])


def _head(report: Report) -> str:
    name = report.checkpoint.path or "model in memory"
    title = f"varshift: {judgement(report).word}, {name}"
    script = base64.b64encode(hashlib.sha256(_file("page.js").encode()).digest()).decode()
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{script}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return "".join(
        _lines(
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">',
            '<link rel="icon" href="data:,">',
            f"<title>{html_text(title)}</title>",
            f"<style>\n{_file('page.css')}</style>",
            "</head>",
            "<body>",
            "<main>",
        )
    )


def _foot(report: Report) -> str:
    said = f"varshift {report.varshift_version}, report schema {report.schema_version}"
    return "".join(
        _lines(
            "</main>",
            f"<footer>{html_text(said)}</footer>",
            f"<script>{_file('page.js')}</script>",
            "</body>",
            "</html>",
        )
    )


def _lines(*lines: str) -> Iterable[str]:
    return (f"{line}\n" for line in lines)


@cache
def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
