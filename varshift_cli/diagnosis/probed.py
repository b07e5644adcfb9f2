"""VS120 and VS121: what the probing forwards found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from varshift_cli.instrument import BatchNormKey
from varshift_cli.instrument.probing import Probe, RandomEvent
from varshift_cli.records import Finding, FindingLevel

UNREGISTERED = (
    "what training does here is not known: something random, or another path, outside the known "
    "noise (VS121)"
)
"""Why the factors of a layer are unknown."""


def probed_findings(
    probe: Probe, names: Mapping[BatchNormKey, str], always_on: Sequence[str]
) -> Iterable[Finding]:
    """Noise that ignores eval() (VS120), and noise that is not registered (VS121).

    Args:
        probe: What was found.
        names: BN calls as reported.
        always_on: Dropouts that stay on in eval(), which are told by themselves.
    """
    parts = probe.parted_at is not None or probe.outputs_part
    if parts and not always_on:
        where = "output" if probe.parted_at is None else f"'{_name(probe.parted_at, names)}'"
        yield Finding(
            "VS120",
            FindingLevel.ERROR,
            () if probe.parted_at is None else (_name(probe.parted_at, names),),
            f"two passes in eval() over the same samples part at {where}"
            f"{_because(probe.always_random)}",
            {"random": [_told(event) for event in probe.always_random]},
            (
                "random numbers drawn in forward() without a look at self.training",
                "a forward that changes its own state",
            ),
        )
    if probe.unregistered or probe.differs_at is not None:
        layers = [name for key, name in names.items() if key in probe.suspect]
        yield Finding(
            "VS121",
            FindingLevel.WARNING,
            tuple(layers),
            _unregistered(probe, names),
            {"random": [_told(event) for event in probe.unregistered]},
            _rivals(probe),
        )


def _unregistered(probe: Probe, names: Mapping[BatchNormKey, str]) -> str:
    if probe.unregistered:
        first = probe.unregistered[0]
        more = len(probe.unregistered) - 1
        others = f" and {more} more" if more else ""
        return (
            f"noise that is not registered is on in train(): {_told(first)}{others}; what dropout "
            "does behind it is unknown"
        )
    assert probe.differs_at is not None
    return (
        f"in train() something else than noise changes what enters "
        f"'{_name(probe.differs_at, names)}'; what dropout does behind it is unknown"
    )


def _rivals(probe: Probe) -> tuple[str, ...]:
    kinds = sorted({event.kind for event in probe.unregistered if event.kind})
    if not kinds:
        return ("a forward that takes another path in train()",)
    return tuple(
        f"a layer of noise to register: --noise FILE.py:{kind}, or noise=[{kind}]" for kind in kinds
    )


def _because(events: Sequence[RandomEvent]) -> str:
    return f": {_told(events[0])} is drawn" if events else ""


def _told(event: RandomEvent) -> str:
    """``torch.rand in 'block.0' (MyNoise, model.py:12)``."""
    op = event.op if event.op in ("random", "numpy.random") else f"torch.{event.op}"
    place = ", ".join(part for part in (event.kind, event.location) if part)
    where = f" in '{event.module}'" if event.module else ""
    return f"{op}{where}{f' ({place})' if place else ''}"


def _name(key: BatchNormKey, names: Mapping[BatchNormKey, str]) -> str:
    return names.get(key, key.name)
