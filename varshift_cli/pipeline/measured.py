"""What a measurement already knows of what a repair needs, so that no pass is run twice."""

from __future__ import annotations

from collections import Counter

from varshift_cli.measurement import Measurement
from varshift_cli.remedies import Populations, Verification, Workload, gather_populations
from varshift_cli.remedies.selection import select_layers
from varshift_cli.remedies.verify import shifts_of


def verification_of(measured: Measurement) -> Verification:
    """The eval pass of a measurement as the one before a repair."""
    calls = (
        (
            layer.key.name,
            layer.site.held_var,
            layer.eval.pooled().var,
            layer.eps,
        )
        for layer in measured.layers
    )
    return Verification(
        **shifts_of(calls),
        outputs=measured.outputs["eval"],
        always_on=tuple(sorted({key.name for key in measured.always_on})),
    )


def populations_of(measured: Measurement, work: Workload) -> Populations:
    """C and T of a measurement, where they hold for a repair; else by passes of their own.

    They hold if every layer that was called may be written: a layer that keeps its buffers must
    have normalised by them.
    """
    calls = Counter(layer.key.name for layer in measured.layers)
    selection = select_layers(
        work.catalogue, calls, batch_statistics=measured.batch_statistics, frozen=work.frozen
    )
    if frozenset(calls) != frozenset(selection.names):
        return gather_populations(work, with_train=True)
    clean = {layer.key.name: layer.clean.pooled() for layer in measured.layers}
    noisy = any(layer.train is not layer.clean for layer in measured.layers)
    return Populations(
        clean,
        {layer.key.name: layer.train.pooled() for layer in measured.layers} if noisy else clean,
        {layer.key.name: layer.eps for layer in measured.layers},
        frozenset(key.name for key in measured.wiring.reached()),
        selection,
        measured.procedure,
    )
