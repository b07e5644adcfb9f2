"""What the wiring of a model says, in the records of a report: which dropout reaches which BN."""

from __future__ import annotations

from collections.abc import Mapping

from varshift_cli.instrument import BatchNormKey, NoiseKey, Wiring
from varshift_cli.instrument.wiring import BatchNormVisit
from varshift_cli.records import DropoutLink, DropoutRecord


def dropout_records(
    wiring: Wiring, names: Mapping[BatchNormKey, str], noises: Mapping[NoiseKey, str]
) -> tuple[DropoutRecord, ...]:
    """The dropouts in the order in which they ran, each with the layers that it reaches."""
    reaches: dict[NoiseKey, list[str]] = {}
    for visit in wiring.batch_norms:
        for key, _case in visit.dropouts:
            reaches.setdefault(key, []).append(names.get(visit.key, visit.key.name))
    return tuple(
        DropoutRecord(
            noises[visit.key],
            visit.kind,
            visit.p,
            visit.location,
            tuple(reaches.get(visit.key, ())),
        )
        for visit in wiring.noises
    )


def links_of(visit: BatchNormVisit, noises: Mapping[NoiseKey, str]) -> tuple[DropoutLink, ...]:
    """The dropouts that reach one layer."""
    return tuple(DropoutLink(noises[key], case) for key, case in visit.dropouts)


def upstream_of(visit: BatchNormVisit, names: Mapping[BatchNormKey, str]) -> tuple[str, ...]:
    """The BN layers whose output one layer gets; those that are not measured by their own name."""
    return tuple(names.get(key, key.name) for key in visit.upstream)
