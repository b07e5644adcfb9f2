"""``varshift fix``."""

from __future__ import annotations

from varshift_cli.cli import options
from varshift_cli.errors import UsageError


def fix(
    model: options.Model,
    *,
    recalibrate: options.Recalibrate = False,
    holdout: options.Holdout = None,
    include_frozen: options.IncludeFrozen = False,
    force: options.Force = False,
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
    samples: options.Samples = None,
    seed: options.Seed = None,
    device: options.Device = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    format: options.FixFormat = None,  # noqa: A002  the option's name
    quiet: options.Quiet = None,
) -> None:
    """Repair the BatchNorm statistics; writes a new, verified file."""
    from varshift_cli.cli.progress import progress_on_stderr
    from varshift_cli.cli.settings import Said, announce, settle
    from varshift_cli.cli.show import fix_format, show_fix
    from varshift_cli.config import load_config
    from varshift_cli.records import FixRequest

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
    if not recalibrate:
        raise UsageError(
            "how to repair was not said",
            hint="--recalibrate recomputes the statistics on your data, with dropout off",
        )
    settled = settle(model, said, config)
    request = FixRequest(
        scan=settled.request,
        method="recalibrate",
        output=output,
        overwrite=overwrite,
        dry_run=dry_run,
        force=force,
        include_frozen=include_frozen,
        holdout=config.holdout if holdout is None else holdout,
    )
    quiet = bool(quiet or config.quiet)
    announce(settled, config, quiet=quiet)
    from varshift_cli.pipeline import fix_checkpoint

    with progress_on_stderr(quiet=quiet) as progress:
        record = fix_checkpoint(request, progress)
    show_fix(record, fix_format(format, config), said.typed())
