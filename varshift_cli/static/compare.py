"""``varshift diff`` of two checkpoints: their BatchNorm (BN) statistics layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from varshift_cli import __version__
from varshift_cli.errors import NothingToMeasureError
from varshift_cli.loading.buffers import TensorFile, open_tensors
from varshift_cli.loading.names import fit_names
from varshift_cli.records import CheckpointDiff, Finding, FindingLevel, StatisticsChange
from varshift_cli.static.counters import gathered_alike
from varshift_cli.static.nets import DEAD, Array, Layer, read_nets
from varshift_cli.static.pairs import sorted_values
from varshift_cli.static.values import USUAL_EPS, counted

_LEAST_CHANNELS = 4
"""With fewer, another order of the same values may be chance."""


def diff_checkpoints(before: str, after: str, key: str | None = None) -> CheckpointDiff:
    """Compare two files; nothing is run.

    Args:
        before: A, a checkpoint of any kind.
        after: B; names may differ by the prefixes of wrappers.
        key: Dotted path of the state dict in both; the likeliest without it.

    Raises:
        CheckpointError: A file cannot be read.
        NothingToMeasureError: They have no BN layer in common.
    """
    files = open_tensors(before, key), open_tensors(after, key)
    layers = [_first_net(file) for file in files]
    paired = _paired(*layers)
    if not paired:
        raise NothingToMeasureError(
            f"{before} ({len(layers[0])} BatchNorm layers) and {after} ({len(layers[1])}) have no "
            "BatchNorm layer of the same name",
            hint="Are they of the same architecture? --key names the state dict in both.",
        )
    changes = tuple(_change(layers[0][a], layers[1][b]) for a, b in paired.items())
    same, other = _weights(files[0], files[1])
    return CheckpointDiff(
        varshift_version=__version__,
        before=str(files[0].path),
        after=str(files[1].path),
        layers=changes,
        only_before=tuple(name for name in layers[0] if name not in paired),
        only_after=tuple(name for name in layers[1] if name not in set(paired.values())),
        same_weights=same,
        other_weights=other,
        findings=tuple(_findings(changes, other)),
        notes=tuple(_notes(changes, same, other)),
    )


def _first_net(file: TensorFile) -> dict[str, Layer]:
    """By name as stored."""
    nets = read_nets(file).nets
    return {layer.name: layer for layer in nets[0].layers.values()} if nets else {}


def _paired(before: Mapping[str, Layer], after: Mapping[str, Layer]) -> dict[str, str]:
    """A's name -> B's name, wrappers' prefixes aside, in A's order."""
    stored = {f"{name}.running_var": name for name in after}
    wanted = {f"{name}.running_var": name for name in before}
    fit = fit_names(list(stored), list(wanted)).stored
    pairs = {wanted[ours]: stored[theirs] for ours, theirs in fit.items()}
    return {
        name: pairs[name]
        for name in before
        if name in pairs and before[name].var.shape == after[pairs[name]].var.shape
    }


def _change(before: Layer, after: Layer) -> StatisticsChange:
    ratio = spread = shift = None
    alive = np.maximum(before.var, after.var) >= DEAD
    if before.finite and after.finite and alive.any():
        logs = np.log((after.var[alive] + USUAL_EPS) / (before.var[alive] + USUAL_EPS))
        ratio, spread = math.exp(logs.mean()), math.exp(logs.std())
        moved = (after.mean - before.mean) / np.sqrt(before.var + USUAL_EPS)
        shift = math.sqrt(float(np.square(moved).mean()))
    same = gathered_alike(before, after)
    return StatisticsChange(
        name=before.name,
        num_features=before.var.size,
        variance_ratio=ratio,
        variance_spread=spread,
        mean_shift=shift,
        same_statistics=same,
        same_affine=_same_affine(before, after),
        permuted=not same and _is_permuted(before, after),
    )


def _same_affine(before: Layer, after: Layer) -> bool | None:
    pairs = ((before.weight, after.weight), (before.bias, after.bias))
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(np.array_equal(a, b) for a, b in known) if known else None


def _is_permuted(before: Layer, after: Layer) -> bool:
    if before.var.size < _LEAST_CHANNELS:
        return False
    halves: tuple[tuple[Array, Array], ...] = (
        (before.mean, after.mean),
        (before.var, after.var),
    )
    return all(np.array_equal(sorted_values(a), sorted_values(b)) for a, b in halves)


def _weights(before: TensorFile, after: TensorFile) -> tuple[int, int]:
    """How many tensors that no BN layer owns are equal, and how many are not."""
    ours, theirs = before.groups[0], after.groups[0]
    fit = fit_names(list(theirs.shapes), list(ours.shapes)).stored
    owners = {name.rpartition(".")[0] for name in ours.shapes if name.endswith(".running_var")}
    same = other = 0
    for name, twin in fit.items():
        if name.rpartition(".")[0] in owners:
            continue
        equal = ours.shapes[name] == theirs.shapes[twin] and np.array_equal(
            ours.read(name), theirs.read(twin), equal_nan=True
        )
        same, other = same + equal, other + (not equal)
    return same, other


def _findings(changes: Sequence[StatisticsChange], other: int) -> Iterator[Finding]:
    moved = [each for each in changes if not each.same_statistics]
    shuffled = [each for each in moved if each.permuted]
    still = [each for each in changes if each.same_statistics]
    if shuffled:
        yield _finding(
            "VS405",
            FindingLevel.WARNING,
            shuffled,
            f"{counted(shuffled)} hold the same statistics in another order of channels",
            ("channels shuffled on purpose, weights with them",),
        )
    if other and still:
        yield _finding(
            "VS209",
            FindingLevel.NOTE,
            still,
            f"weights changed and the statistics of {counted(still)} did not, to the last bit: "
            "frozen, or not recomputed",
            (
                "weights pruned, merged or quantised afterwards (VS208)",
                "averaged weights that carry the buffers of the raw ones (VS207)",
            ),
        )
    half = [each for each in moved if each.same_affine]
    if other and half:
        yield _finding(
            "VS211",
            FindingLevel.NOTE,
            half,
            f"scale and offset of {counted(half)} are equal to the last bit, while statistics and "
            "other weights changed: frozen by one half",
            ("scale and offset never trained in either",),
        )


def _notes(changes: Sequence[StatisticsChange], same: int, other: int) -> Iterator[str]:
    """What two files that differ in nothing but statistics are likely to be."""
    moved = any(not each.same_statistics for each in changes)
    affine = all(each.same_affine in {True, None} for each in changes)
    if moved and same and not other and affine:
        yield (
            f"all {same} other tensors are equal: one file was repaired, or two processes of one "
            "training did not synchronise their buffers"
        )


def _finding(
    code: str,
    level: FindingLevel,
    layers: Sequence[StatisticsChange],
    message: str,
    rivals: tuple[str, ...],
) -> Finding:
    names = tuple(each.name for each in layers)
    return Finding(code, level, names, message, {"layers": len(layers)}, rivals)
