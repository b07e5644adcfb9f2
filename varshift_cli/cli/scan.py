"""``varshift scan``."""

from __future__ import annotations

from varshift_cli.cli import options


def scan(
    model: options.Model,
    *,
    arch: options.Arch = None,
    arch_arg: options.ArchArg = None,
    key: options.Key = None,
    allow_pickle: options.AllowPickle = False,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    train_data: options.TrainData = None,
    input: options.Input = None,  # noqa: A002  the option's name
    label: options.Label = None,
    forward: options.Forward = None,
    noise: options.Noise = None,
    metric: options.Metric = None,
    batch_size: options.BatchSize = None,
    train_batch_size: options.TrainBatchSize = None,
    samples: options.SamplesOrAuto = None,
    seed: options.Seed = None,
    device: options.Device = None,
    memory: options.Memory = None,
    no_attribute: options.NoAttribute = None,
    max_shift: options.MaxShift = None,
    baseline: options.Baseline = None,
    format: options.Format = None,  # noqa: A002  the option's name
    report: options.Report = None,
    all: options.All = None,  # noqa: A002  the option's name
    order: options.OrderBy = None,
    channels: options.Channels = None,
    quiet: options.Quiet = None,
) -> None:
    """Measure how far each BatchNorm layer is off in eval(), and why."""
    from varshift_cli.cli import output
    from varshift_cli.cli.choices import choose
    from varshift_cli.cli.errors import loading_torch
    from varshift_cli.cli.gating import exit_by_verdict, settle_gate
    from varshift_cli.cli.progress import progress_on_stderr
    from varshift_cli.cli.settings import Said, announce, settle
    from varshift_cli.cli.show import View, show_report
    from varshift_cli.config import load_config
    from varshift_cli.heap import keep_freed_memory
    from varshift_cli.records import files_read
    from varshift_cli.report import FORMATS

    config = load_config()
    said = Said(
        arch=arch,
        arch_arg=arch_arg,
        key=key,
        data=data,
        data_arg=data_arg,
        train_data=train_data,
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
    gate = settle_gate(config, max_shift=max_shift, baseline=baseline)
    settled = settle(
        model,
        said,
        config,
        channels=bool(channels or config.channels),
        growing=gate.is_set,
        attribute=not (no_attribute or config.no_attribute),
    )
    gate.check(settled.request)
    view = View(
        format=choose(options.FormatName, format, config.format, config)
        or options.FormatName.TABLE,
        order=choose(options.Order, order, config.order, config) or options.Order.SHIFT,
        all_layers=bool(all or config.all),
        typed=said.typed(),
    )
    reserved = {**files_read(settled.request), **gate.reads}
    files = output.report_files(report or (), FORMATS, reserved=reserved)
    quiet = bool(quiet or config.quiet)
    announce(settled, config, quiet=quiet)
    keep_freed_memory()
    with loading_torch():
        from varshift_cli.pipeline import scan_checkpoint, scan_until

    with output.kept_for_the_report(), progress_on_stderr(quiet=quiet) as progress:
        if settled.most_samples is None:
            found = scan_checkpoint(settled.request, progress)
        else:
            found = scan_until(gate.settled, settled.request, settled.most_samples, progress)
    found = gate.judged(found)
    for file in files:
        file.write(found)
    show_report(found, view)
    exit_by_verdict(found)
