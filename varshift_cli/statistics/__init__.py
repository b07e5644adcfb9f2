"""Numbers about channels: float64 moments, their merging, ratios and intervals.

Shapes: ``N`` rows of a batch, ``C`` channels, ``*S`` positions, ``G`` groups of samples, ``D``
bootstrap draws. Variances are unbiased (ddof 1) unless a name says otherwise.
"""

from varshift_cli.statistics.intervals import (
    Resampling,
    ShiftEstimate,
    geometric_interval,
    jackknife_error,
    shift_estimate,
    t975,
)
from varshift_cli.statistics.leaving_out import all_but_one_group, left_out_interval
from varshift_cli.statistics.means import mean_interval
from varshift_cli.statistics.moments import GroupMoments, Population
from varshift_cli.statistics.ratios import DEAD_FRACTION, live_channels, log_ratio
from varshift_cli.statistics.regression import (
    Pair,
    SlopeEstimate,
    common_factor,
    within_layer_slope,
)

__all__ = [
    "DEAD_FRACTION",
    "GroupMoments",
    "Pair",
    "Population",
    "Resampling",
    "ShiftEstimate",
    "SlopeEstimate",
    "all_but_one_group",
    "common_factor",
    "geometric_interval",
    "jackknife_error",
    "left_out_interval",
    "live_channels",
    "log_ratio",
    "mean_interval",
    "shift_estimate",
    "t975",
    "within_layer_slope",
]
