"""``varshift lint``: from a file to what its BatchNorm buffers alone tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from varshift_cli import __version__
from varshift_cli.errors import NothingToMeasureError
from varshift_cli.loading.buffers import open_tensors
from varshift_cli.records import Finding, FindingLevel, LintReport, StoredLayer
from varshift_cli.static import affine, counters, pairs, values
from varshift_cli.static.nets import DEAD, Contents, Layer, read_nets

_LOUDNESS = {FindingLevel.ERROR: 0, FindingLevel.WARNING: 1, FindingLevel.NOTE: 2}


def lint_checkpoint(path: str, key: str | None = None) -> LintReport:
    """Read the BatchNorm tensors of a checkpoint, and judge them; nothing is run.

    Args:
        path: A checkpoint of any kind, or a folder with a single weights file.
        key: Dotted path of the one state dict to look at; all with BatchNorm without it.

    Raises:
        CheckpointError: The file cannot be read.
        NothingToMeasureError: It holds no BatchNorm buffers.
    """
    file = open_tensors(path, key)
    contents = read_nets(file)
    layers = [layer for net in contents.nets for layer in net.layers.values()]
    if not layers and not contents.missing and not contents.skipped:
        raise NothingToMeasureError(
            f"{path} holds {contents.tensors:,} tensors, none of them named running_mean, "
            "running_var or num_batches_tracked: no BatchNorm statistics",
            hint="A network without BatchNorm has no variance shift. If it has some, the file "
            "was saved from parameters() alone: save model.state_dict().",
        )
    findings = judge(contents)
    return LintReport(
        varshift_version=__version__,
        path=str(file.path),
        container=file.container,
        file_bytes=file.source.size,
        bytes_read=file.bytes_read,
        tensors=contents.tensors,
        layers=tuple(_with_codes(_stored(layer), findings) for layer in layers),
        findings=findings,
        skipped=contents.skipped,
        notes=_notes(contents),
    )


def judge(contents: Contents) -> tuple[Finding, ...]:
    """All findings: the loudest first, within a loudness what is broken before what is odd."""
    found = [
        *values.broken(contents),
        *values.never_updated(contents),
        *counters.too_few(contents),
        *pairs.averaged(contents),
        *counters.standing_still(contents),
        *counters.multiples(contents),
        *pairs.twice(contents),
        *pairs.permuted(contents),
        *counters.no_count(contents),
        *values.outliers(contents),
        *affine.half_frozen(contents),
        *affine.silent(contents),
        *values.dead(contents),
        *values.near_eps(contents),
    ]
    return tuple(sorted(found, key=lambda finding: _LOUDNESS[finding.level]))


def _stored(layer: Layer) -> StoredLayer:
    whole = layer.finite
    return StoredLayer(
        name=layer.shown,
        num_features=layer.var.size,
        updates=layer.updates,
        variance_low=float(layer.var.min()) if whole else None,
        variance_median=float(np.median(layer.var)) if whole else None,
        variance_high=float(layer.var.max()) if whole else None,
        mean_largest=float(np.abs(layer.mean).max()) if whole else None,
        dead_channels=int((layer.var < DEAD).sum()),
    )


def _with_codes(layer: StoredLayer, findings: Sequence[Finding]) -> StoredLayer:
    codes = [each.code for each in findings if layer.name in each.layers]
    return replace(layer, codes=tuple(dict.fromkeys(codes)))


def _notes(contents: Contents) -> tuple[str, ...]:
    notes = []
    if len(contents.nets) > 1:
        named = ", ".join(net.key or "the top level" for net in contents.nets)
        notes.append(f"{len(contents.nets)} networks in this file: {named}")
    notes.append("eps and momentum are no part of a checkpoint: 1e-5 and 0.1 are assumed")
    return tuple(notes)
