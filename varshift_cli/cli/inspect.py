"""``varshift inspect``."""

from __future__ import annotations

import sys
from dataclasses import replace

from varshift_cli.cli import options

HANDFUL = 8
"""Samples, unless the user says how many: wiring does not depend on them."""


def inspect(
    model: options.Model,
    *,
    arch: options.Arch = None,
    arch_arg: options.ArchArg = None,
    key: options.Key = None,
    allow_pickle: options.AllowPickle = False,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    input: options.Input = None,  # noqa: A002  the option's name
    label: options.Label = None,
    forward: options.Forward = None,
    noise: options.Noise = None,
    batch_size: options.BatchSize = None,
    samples: options.FewSamples = None,
    seed: options.Seed = None,
    device: options.Device = None,
    format: options.ScreenFormat = None,  # noqa: A002  the option's name
    quiet: options.Quiet = None,
) -> None:
    """Show BatchNorm layers, dropouts, and which reaches which.

    In execution order, by a handful of samples that go through the model; nothing is judged.
    """
    from varshift_cli.cli import output
    from varshift_cli.cli.choices import screen_of
    from varshift_cli.cli.errors import loading_torch
    from varshift_cli.cli.progress import progress_on_stderr
    from varshift_cli.cli.settings import Said, announce, settle
    from varshift_cli.config import load_config
    from varshift_cli.report import inspection_to_json, render_inspect

    config = load_config()
    said = Said(
        arch=arch,
        arch_arg=arch_arg,
        key=key,
        data=data,
        data_arg=data_arg,
        input=input,
        label=label,
        forward=forward,
        noise=noise,
        batch_size=batch_size,
        samples=samples,
        seed=seed,
        device=device,
        allow_pickle=allow_pickle,
    )
    settled = settle(model, said, replace(config, train_data=None))  # it is for scans
    screen = screen_of(format, config)
    quiet = bool(quiet or config.quiet)
    announce(settled, config, quiet=quiet)
    with loading_torch():
        from varshift_cli.pipeline import inspect_checkpoint

    few = HANDFUL if samples is None else samples
    size = few if batch_size is None else batch_size
    request = replace(settled.request, samples=few, batch_size=size)
    with output.kept_for_the_report(), progress_on_stderr(quiet=quiet) as progress:
        seen = inspect_checkpoint(request, progress)
    if screen is options.Screen.JSON:
        output.emit(inspection_to_json(seen))
    else:
        # The number of samples was for this look alone.
        typed = replace(said, samples=None, batch_size=None).typed()
        output.emit(render_inspect(seen, output.style_of(sys.stdout), typed=typed))
