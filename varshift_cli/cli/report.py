"""``varshift report``: a saved report in another format; needs neither torch nor the model."""

from __future__ import annotations

from varshift_cli.cli import options
from varshift_cli.cli.saved import SavedReport


def report(
    saved: SavedReport,
    *,
    format: options.Format = None,  # noqa: A002  the option's name
    report: options.Report = None,
    all: options.All = None,  # noqa: A002  the option's name
    order: options.OrderBy = None,
) -> None:
    """Show a saved report again, in any format; the exit code is 0."""
    from varshift_cli.cli import output
    from varshift_cli.cli.choices import choose
    from varshift_cli.cli.saved import read_report
    from varshift_cli.cli.show import View, show_report
    from varshift_cli.config import load_config
    from varshift_cli.report import FORMATS

    config = load_config()
    view = View(
        format=choose(options.FormatName, format, config.format, config)
        or options.FormatName.TABLE,
        order=choose(options.Order, order, config.order, config) or options.Order.SHIFT,
        all_layers=bool(all or config.all),
        config=config,
    )
    files = output.report_files(report or (), FORMATS, reserved=output.the_report(saved))
    found = read_report(saved)
    for file in files:
        file.write(found)
    show_report(found, view)
