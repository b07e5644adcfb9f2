"""Regimes over batches, and the layer records that come of them."""

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
