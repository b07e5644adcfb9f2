"""Layers whose stored statistics are made from their data by a formula of ours."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tests import samples
from varshift_cli.diagnosis.evidence import Evidence
from varshift_cli.diagnosis.observations import Observations, Question
from varshift_cli.instrument import BatchNormKey, BatchNormSite
from varshift_cli.measurement import LayerMoments
from varshift_cli.records import BuffersRecord, Factors, LayerRecord, Level
from varshift_cli.statistics import GroupMoments

CHANNELS = 12
SAMPLES = 512
GROUPS = 16
EPS = 1e-5


def values(seed: int = 0, positions: int = 6) -> Tensor:
    """(SAMPLES, CHANNELS, positions): channels of other means and sizes, samples alike in part."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(CHANNELS, 1, generator=generator)
    sizes = 0.3 + 2.0 * torch.rand(CHANNELS, 1, generator=generator)
    own = torch.randn(SAMPLES, CHANNELS, 1, generator=generator)
    noise = torch.randn(SAMPLES, CHANNELS, positions, generator=generator)
    return means + sizes * (0.8 * own + 0.6 * noise)


def moments(x: Tensor, groups: Tensor | None = None) -> GroupMoments:
    """Of x, in equal groups of samples unless groups are given."""
    index = torch.arange(len(x)) * GROUPS // len(x) if groups is None else groups
    found = GroupMoments(int(index.max()) + 1, x.shape[1])
    found.add(x, index)
    return found


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance per channel, in float64, over all at once."""
    flat = x.double().movedim(1, -1).flatten(0, -2)
    return flat.mean(0), flat.var(0)


def layer(
    name: str = "bn",
    *,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    x: Tensor | None = None,
    upstream: tuple[str, ...] = (),
    level: Level = Level.STRONG,
    alpha: float = 0.1,
    updates: int | None = 500,
    call: int = 1,
    **more: object,
) -> Evidence:
    """A layer that meets x and holds these statistics; x's own where none are given."""
    x = values() if x is None else x
    own_mean, own_var = statistics(x)
    site = BatchNormSite(
        name,
        "BatchNorm1d",
        (own_mean if mean is None else mean).float(),
        (own_var if var is None else var).float(),
        None if updates is None else torch.tensor(updates),
    )
    found = moments(x)
    record: LayerRecord = replace(
        samples.shifted().layers[0],
        name=name if call == 1 else f"{name}#{call}",
        upstream=upstream,
        level=level,
        **{"factors": Factors(1.0, None, 1.0, 1.0), **more},
    )
    measured = LayerMoments(BatchNormKey(name, call), site, EPS, found, found, found)
    return Evidence(record, measured, found, alpha, len(x))


def asked(*layers: Evidence, **seen: object) -> Question:
    """A question about these layers."""
    observations = Observations(
        [each.record for each in layers],
        (),
        BuffersRecord(),
        [each.layer.site for each in layers],
        **seen,
    )
    return Question(observations, list(layers), list(layers))
