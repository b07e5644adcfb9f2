"""``varshift fix``."""

from __future__ import annotations

from dataclasses import replace

from varshift_cli.cli import options
from varshift_cli.errors import UsageError


def fix(
    model: options.Model,
    *,
    auto: options.Auto = False,
    recalibrate: options.Recalibrate = False,
    correct: options.Correct = False,
    revert: options.Revert = False,
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
    metric: options.Metric = None,
    batch_size: options.BatchSize = None,
    train_batch_size: options.TrainBatchSize = None,
    samples: options.Samples = None,
    seed: options.Seed = None,
    device: options.Device = None,
    memory: options.Memory = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    in_place: options.InPlace = False,
    dry_run: options.DryRun = False,
    format: options.FixFormat = None,  # noqa: A002  the option's name
    report: options.FixReport = None,
    quiet: options.Quiet = None,
) -> None:
    """Repair the BatchNorm statistics; writes a new, verified file."""
    from varshift_cli.cli import output as streams
    from varshift_cli.cli.errors import loading_torch
    from varshift_cli.cli.progress import progress_on_stderr
    from varshift_cli.cli.settings import Said, announce, settle, with_holdout
    from varshift_cli.cli.show import fix_format, show_fix
    from varshift_cli.config import load_config
    from varshift_cli.heap import keep_freed_memory
    from varshift_cli.records import FixRequest, files_read
    from varshift_cli.report import FIX_FORMATS

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
        metric=metric,
        batch_size=batch_size,
        train_batch_size=train_batch_size,
        samples=samples,
        seed=seed,
        device=device,
        memory=memory,
        allow_pickle=allow_pickle,
    )
    method = _method(auto=auto, recalibrate=recalibrate, correct=correct, revert=revert)
    settled = settle(model, said, replace(config, train_data=None))  # it is for scans
    request = FixRequest(
        scan=settled.request,
        method=method,
        output=output,
        overwrite=overwrite,
        dry_run=dry_run,
        force=force,
        include_frozen=include_frozen,
        holdout=config.holdout if holdout is None else holdout,
        in_place=in_place,
    )
    quiet = bool(quiet or config.quiet)
    if method != "revert":
        announce(with_holdout(settled, request.holdout, holdout), config, quiet=quiet)
    keep_freed_memory()
    with loading_torch():
        from varshift_cli.pipeline import fix_checkpoint, written_files

    reserved = {**files_read(request), **written_files(request)}
    files = streams.report_files(report or (), FIX_FORMATS, reserved=reserved)
    with streams.kept_for_the_report(), progress_on_stderr(quiet=quiet) as progress:
        record = fix_checkpoint(request, progress)
    for file in files:
        file.write(record)
    show_fix(record, fix_format(format, config), said.typed())


def _method(**asked: bool) -> str:
    """The repair that was named; ``auto`` if none was.

    Raises:
        UsageError: More than one was.
    """
    named = [name for name, is_asked in asked.items() if is_asked]
    if len(named) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in named)} exclude each other",
            hint="Without any of them fix chooses by itself, and says why.",
        )
    return named[0] if named else "auto"
