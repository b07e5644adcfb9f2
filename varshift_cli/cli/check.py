"""``varshift check``: the gate on a saved report; needs neither torch nor the model."""

from __future__ import annotations

from varshift_cli.cli import options
from varshift_cli.cli.saved import SavedReport
from varshift_cli.errors import UsageError


def check(
    saved: SavedReport,
    *,
    max_shift: options.MaxShift = None,
    baseline: options.Baseline = None,
    format: options.Format = None,  # noqa: A002  the option's name
    report: options.Report = None,
    all: options.All = None,  # noqa: A002  the option's name
    order: options.OrderBy = None,
) -> None:
    """Gate on a saved report: exit 1 if a layer is beyond the threshold."""
    from varshift_cli.cli import output
    from varshift_cli.cli.choices import choose
    from varshift_cli.cli.gating import exit_by_verdict, settle_gate
    from varshift_cli.cli.saved import read_report
    from varshift_cli.cli.show import View, show_report
    from varshift_cli.config import load_config
    from varshift_cli.report import FORMATS

    config = load_config()
    found = read_report(saved)
    gate = settle_gate(
        config, max_shift=max_shift, baseline=baseline, otherwise=found.verdict.threshold
    )
    reserved = {**output.the_report(saved), **gate.reads}
    files = output.report_files(report or (), FORMATS, reserved=reserved)
    if not gate.is_set:
        raise UsageError(
            "there is nothing to check against: no threshold was given",
            hint="--max-shift 1.25, or max-shift = 1.25 in ./varshift.toml, or --baseline",
        )
    judged = gate.judged(found)
    view = View(
        format=choose(options.FormatName, format, config.format, config)
        or options.FormatName.TABLE,
        order=choose(options.Order, order, config.order, config) or options.Order.SHIFT,
        all_layers=bool(all or config.all),
        config=config,
    )
    for file in files:
        file.write(judged)
    show_report(judged, view)
    exit_by_verdict(judged)
