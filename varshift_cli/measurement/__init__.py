"""Regimes over batches, and the layer records that come of them.

A model is run by ``instrument``, which gives it back as it was; nothing of it is changed here. Read
``regimes`` (C, T and E), ``passes`` (how batches go through), ``measure`` (their order), ``layers``
(figures of one layer); ``attribution`` and ``prediction`` are the passes that explain.
"""

from varshift_cli.measurement.figures import labels_of, targets_of
from varshift_cli.measurement.layers import LayerMoments, layer_record
from varshift_cli.measurement.measure import Measurement, measure
from varshift_cli.measurement.outputs import effect_of
from varshift_cli.measurement.unmeasurable import check_batches, nothing_to_measure

__all__ = [
    "LayerMoments",
    "Measurement",
    "check_batches",
    "effect_of",
    "labels_of",
    "layer_record",
    "measure",
    "nothing_to_measure",
    "targets_of",
]
