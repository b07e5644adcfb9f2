"""What was measured at a BatchNorm (BN) layer and at a dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from varshift_cli.records.levels import Case, Level


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, ``low <= high``, in the unit of the figure beside it."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Factors:
    """Geometric means over live channels; their product is ``signed``."""

    stale: float | None
    """T/R (or T_batch/R where ``batch`` is split off)."""
    batch: float | None
    """T/T_batch; ``None`` without ``--train-batch-size``."""
    dropout: float | None
    """C/T; exactly 1 in a model without dropout."""
    inherited: float | None
    """E/C."""


@dataclass(frozen=True, slots=True)
class FactorIntervals:
    """Jackknife intervals of :class:`Factors`."""

    stale: Interval | None
    batch: Interval | None
    dropout: Interval | None
    inherited: Interval | None


@dataclass(frozen=True, slots=True)
class DropoutLink:
    """A dropout that reaches a layer, and how."""

    name: str
    case: Case


@dataclass(frozen=True, slots=True)
class AttributionShare:
    """How much of ln(C/T) one dropout alone brings about: the mean over live channels."""

    name: str
    share: float
    """With this dropout alone on; in ln units, as its standard error."""
    error: float | None = None
    second: float | None = None
    """Second opinion: half of ``share`` and of what switching it off alone takes away."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one dropout does to a layer that it reaches with no other BN between, by formula.

    Both factors are C/T with this dropout alone on, geometric means over live channels. c, v, rho,
    cos2, d and delta are the quantities of Li et al., means over inputs and filters.
    """

    name: str
    case: Case
    predicted: float | None
    """From second moments and weights of the clean pass alone."""
    measured: float | None
    """On the same samples."""
    error: float | None
    """Standard error of ln(predicted/measured)."""
    agrees: bool | None
    """Whether predicted/measured is 1 within 95 %; ``None`` where they are not compared."""
    c: float | None = None
    """Mean of an input: of the noise in case a, of the weights behind it in case b."""
    v: float | None = None
    """Variance of an input."""
    rho: float | None = None
    """Correlation of two inputs of a filter; case b."""
    cos2: float | None = None
    """cos^2 of the angle between a filter and the vector of ones; case b."""
    d: int | None = None
    """Inputs of a filter: channels per group times kernel size; case b."""
    delta: float | None = None
    """Li et al.'s Delta from these: eq. 7-8 in case a, eq. 14 in case b."""
    reason: str | None = None
    """Why it was not predicted, or not compared."""


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """Per-channel arrays of shape (C,), reported on request only."""

    running_var: tuple[float, ...]
    train_var: tuple[float, ...]
    clean_var: tuple[float, ...]
    eval_var: tuple[float, ...]
    running_mean: tuple[float, ...]
    train_mean: tuple[float, ...]
    clean_mean: tuple[float, ...]
    eval_mean: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One call of one BN layer; layers are in execution order."""

    name: str
    kind: str
    num_features: int
    eps: float
    call: int
    """1 for the first call of this layer in a forward, 2 for the second, ..."""
    shift: float | None
    """exp of the bias-corrected mean over live channels of |ln((E+eps)/(R+eps))|; >= 1."""
    shift_interval: Interval | None
    signed: float | None
    """Geometric mean over live channels of (E+eps)/(R+eps) = product of the factors."""
    signed_interval: Interval | None
    paper_ratio: float | None
    """max(mean E / mean R, mean R / mean E), the ratio of channel means of Li et al., Fig. 4."""
    median_ratio: float | None
    """Median over live channels of (E+eps)/(R+eps)."""
    worst_channel: int | None
    worst_ratio: float | None
    """(E+eps)/(R+eps) of the live channel farthest from 1, and its index."""
    mean_shift: float | None
    """Root mean square over channels of (mean_E - running_mean)/sqrt(R+eps)."""
    dead_channels: int
    """Channels with max(R, E) < 0.01 eps; left out of the means."""
    level: Level | None
    cause: str | None
    """``stale``, ``batch``, ``dropout``, ``inherited``, or two that cancel: ``stale x dropout``."""
    factors: Factors
    factor_intervals: FactorIntervals
    dropouts: tuple[DropoutLink, ...] = ()
    """Dropouts that reach this layer with no other BN between."""
    attribution: tuple[AttributionShare, ...] | None = None
    """Largest first. Shares and residual add up to ln of the dropout factor."""
    attribution_residual: float | None = None
    prediction: tuple[Prediction, ...] | None = None
    """For each dropout that reaches it with no other BN between; in the order of ``dropouts``."""
    location: str | None = None
    """``file:line`` of the call, where it is known."""
    upstream: tuple[str, ...] = ()
    """BN layers whose output reaches this one with no other BN between."""
    channels: ChannelFigures | None = None


@dataclass(frozen=True, slots=True)
class DropoutRecord:
    """One noise site in the forward, in execution order."""

    name: str
    kind: str
    """``dropout``, ``feature_dropout``, ``alpha_dropout``, ``feature_alpha_dropout``, ``rrelu``,
    ``rnn_dropout``, ``attention_dropout``, ``drop_path``, ``stochastic_depth``, ``drop_block``...;
    a type of the user's own by its class name."""
    p: float | None
    """DROP probability; ``None`` where the noise has none, or none that can be read."""
    location: str | None
    """``file:line`` of the call, where it is known."""
    reaches: tuple[str, ...]
    """Names of the BN layers it reaches with no other BN between."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A BN layer that was not measured, and why."""

    name: str
    reason: str


def worst_layer(layers: Sequence[LayerRecord]) -> LayerRecord | None:
    """The measured layer with the largest ``shift``; the first one on a tie."""
    measured = [layer for layer in layers if layer.shift is not None]
    return max(measured, key=lambda layer: layer.shift or 0.0, default=None)
