"""``--samples auto``: draw until the gate is decided, or the data or the budget end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from varshift_cli.pipeline.inputs import open_inputs
from varshift_cli.pipeline.scanning import look_at
from varshift_cli.records import Progress, Report, ScanRequest, SilentProgress


def scan_until(
    settled: Callable[[Report], bool],
    request: ScanRequest,
    most: int,
    progress: Progress | None = None,
) -> Report:
    """Scan with ``request.samples``, then twice as many, and so on, until it is settled.

    The same seed draws nested samples, so that each look has all that the one before it had. The
    measurement is made anew each time: together they cost at most twice the last one. The passes
    that only tell causes apart are made once, over the samples of the last look.

    Args:
        settled: Whether the gate has decided beyond doubt.
        request: What to scan; its ``samples`` are the first draw.
        most: No more samples than this are drawn.
        progress: Told of each stage.

    Raises:
        VarshiftError: Something is wrong with the user's files, options or model.
    """
    progress = progress or SilentProgress()
    samples = min(request.samples, most)
    while True:
        asked = replace(request, samples=samples)
        look = look_at(open_inputs(asked, asked.train_data), asked, progress)
        report = look.report(progress, diagnose=False)
        # Fewer than asked for: the data hold no more.
        if settled(report) or report.calibration.samples < samples or samples >= most:
            return look.report(progress, diagnose=True)
        samples = min(2 * samples, most)
