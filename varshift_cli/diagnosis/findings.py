"""All findings of a scan, in order: what is broken, causes by strength, consequences, notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from varshift_cli.diagnosis.batching import small_batches, unsorted
from varshift_cli.diagnosis.broken import broken
from varshift_cli.diagnosis.evidence import Evidence, evidence_of
from varshift_cli.diagnosis.inputs import not_guilty, other_inputs, unlike_training
from varshift_cli.diagnosis.noise import inherited, moved_means, noises, repaired
from varshift_cli.diagnosis.observations import Observations, Question
from varshift_cli.diagnosis.parting import parted
from varshift_cli.diagnosis.stored import (
    averaged,
    changed_weights,
    frozen,
    odd_buffers,
    one_batch,
    stale,
    too_few,
)
from varshift_cli.diagnosis.structure import (
    odd_structure,
    other_eps,
    outliers,
    permuted,
    shared,
)
from varshift_cli.records import Describe, Finding, FindingLevel

Rule = Callable[[Question], Finding | None]

_RULES: tuple[Rule, ...] = (
    # What was measured on the training data first, then single layers, then facts about the whole
    # network, then what only figures tell.
    unlike_training,
    shared,
    permuted,
    outliers,
    frozen,
    averaged,
    changed_weights,
    one_batch,
    too_few,
    other_eps,
    unsorted,
    other_inputs,
    small_batches,
    stale,
)
"""Each is asked about the layers that none before it has claimed."""


def find_causes(seen: Observations) -> tuple[Finding, ...]:
    """All findings: broken buffers first, then causes by strength, then their consequences."""
    wrong = list(broken(seen))
    suspect = {name for finding in wrong for name in finding.layers}
    rest = [layer for layer in seen.layers if layer.name not in suspect]
    evidence = [each for each in _evidence(seen) if each.name not in suspect]
    causes = [*noises(seen, rest), *_stored(seen, evidence)]
    causes.sort(key=_weight)
    notes = [
        *parted(rest),
        *odd_structure(seen),
        *odd_buffers(seen, evidence),
        *(not_guilty(seen) if not wrong and not causes else []),
    ]
    cleared, means = list(repaired(seen)), moved_means(seen, rest)
    return (
        *wrong,
        *cleared,
        *causes,
        *means,
        *inherited(rest, named=bool(wrong or causes)),
        *notes,
    )


def _weight(finding: Finding) -> tuple[bool, float]:
    """Faults before notes, the strongest first."""
    return finding.level is FindingLevel.NOTE, -float(finding.evidence["strength"])


def _evidence(seen: Observations) -> list[Evidence]:
    """Empty where nobody can tell what training saw."""
    if not seen.moments:
        return []
    clean = seen.buffers.describe is Describe.CLEAN
    return evidence_of(seen.moments, seen.layers, seen.facts.momentum, seen.samples, clean=clean)


def _stored(seen: Observations, evidence: Sequence[Evidence]) -> list[Finding]:
    found: list[Finding] = []
    left = list(evidence)
    for rule in _RULES:
        finding = rule(Question(seen, left, evidence))
        if finding is not None:
            found.append(finding)
            left = [each for each in left if each.name not in finding.layers]
    return found
