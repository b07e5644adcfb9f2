"""The report as one HTML file: no network, no other file, light, dark and on paper."""

from varshift_cli.report.html.page import to_html
from varshift_cli.report.html.plots import require_matplotlib

__all__ = ["require_matplotlib", "to_html"]
