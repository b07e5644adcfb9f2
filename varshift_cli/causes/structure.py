"""VS4xx: what the network's structure does to BatchNorm's statistics."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

SHARED = Cause(
    code="VS401",
    title="one BatchNorm layer for several inputs",
    family=Family.STRUCTURE,
    short=(
        "The same BatchNorm layer is called more than once in a forward pass, for inputs that "
        "differ. It keeps one mean and one variance for all of them, so it fits none."
    ),
    signature=(
        "The layer is called several times in one forward (reported as name#1, name#2, ...), and "
        "T or the means of the calls differ. R is near the average over the calls. In a file "
        "alone: num_batches_tracked is a whole multiple of that of the other layers."
    ),
    why=(
        "While training each call is normalised by its own batch; in eval() all are normalised by "
        "the one average, which lacks the difference between the calls' means. Detection heads "
        "shared between scales, siamese networks and networks that see real and generated images "
        "in turn are built like this. Recomputing gives the best single pair of numbers and still "
        "cannot fit every call."
    ),
    remedies=(
        Remedy(
            "Give each use a BatchNorm layer of its own",
            "share the convolution, not the normalisation; copy the statistics into each copy, "
            "then recalibrate",
        ),
        Remedy("Use a layer without statistics", "torch.nn.GroupNorm", needs_training=True),
    ),
    reference='Wu, Johnson: Rethinking "Batch" in BatchNorm. arXiv 2105.07576',
)

NO_STATISTICS = Cause(
    code="VS402",
    title="no running statistics",
    family=Family.STRUCTURE,
    short=(
        "This layer stores no mean and variance: in eval() too it normalises by the batch at "
        "hand. What the network says of one input then depends on its neighbours in the batch."
    ),
    signature=(
        "The layer was built with track_running_stats=False, or runs with training=True even in "
        "eval(). The same input in another batch, or alone, gives another output."
    ),
    why=(
        "It is sometimes done on purpose (style transfer, meta-learning, adapting to new data), "
        "and often to hide a problem with running statistics. There is nothing to repair in the "
        "file; with batches of one the layer may return zeros."
    ),
    remedies=(
        Remedy(
            "If it was not meant: keep statistics",
            "track_running_stats=True, then varshift_cli.recalibrate(model, batches) in Python",
        ),
    ),
    reference="PyTorch documentation, torch.nn.BatchNorm2d: track_running_stats",
)

DEAD = Cause(
    code="VS403",
    title="dead channels",
    family=Family.STRUCTURE,
    short=(
        "Some channels never change: whatever the input, they hold the same number. They carry "
        "nothing, and ratios of their variances mean nothing either. Usually harmless."
    ),
    signature=(
        "running_var and the variance measured in eval() are both below a hundredth of eps (1e-7 "
        "at the usual eps 1e-5); often they are denormal numbers such as 5.6e-45."
    ),
    why=(
        "Weight decay has driven the weights before these channels to 0, or the activations before "
        "them are always 0. varshift counts them and leaves them out of every mean."
    ),
    remedies=(Remedy("Nothing; or prune them", "they can be removed without changing any output"),),
    reference="Mehta, Kim, Theobalt: On Implicit Filter Level Sparsity in CNNs. CVPR 2019",
)

EPS = Cause(
    code="VS404",
    title="another eps than in training",
    family=Family.STRUCTURE,
    short=(
        "BatchNorm adds a small constant, eps, before it divides. The network seems to have been "
        "trained with another eps than it now runs with, which changes the scale of channels "
        "with very small variance."
    ),
    signature=(
        "A layer has channels whose variance v is not much larger than eps; the layers it feeds "
        "have a stale factor T/R away from 1 and the layers before it have not; and with another "
        "usual eps (1e-3, the default of Keras) the difference goes away. A channel is scaled "
        "wrongly by sqrt((v + eps) / (v + eps_trained))."
    ),
    letters=(
        ("v", "variance of what enters the channel"),
        ("eps_trained", "the eps of training; eps is that of today"),
    ),
    why=(
        "eps is no part of a checkpoint. Keras and TensorFlow use 1e-3, PyTorch 1e-5, and a "
        "converted network keeps the weights but not the eps."
    ),
    remedies=(
        Remedy(
            "Build the network with the eps it was trained with",
            "torch.nn.BatchNorm2d(channels, eps=1e-3)",
        ),
    ),
    reference="Keras documentation, BatchNormalization: epsilon=0.001",
)

PERMUTED = Cause(
    code="VS405",
    title="statistics of the right layer in the wrong order",
    family=Family.STRUCTURE,
    short=(
        "The stored values are the right ones, but they belong to other channels: they were "
        "shuffled, or mean and variance changed places, when the file was converted."
    ),
    signature=(
        "Channel by channel the stored values differ from those measured; sorted by size they "
        "agree, or the stored means agree with the measured variances. Usually a few layers alone."
    ),
    why=(
        "A conversion between frameworks, or a channel shuffle or pruning that moved the weights, "
        "left the buffers behind or took them in another order."
    ),
    remedies=(
        Remedy("Repair the conversion", "apply the weights' permutation to the buffers too"),
        Remedy(
            "Or recompute, if weight and bias of the layer are in the right order",
            "varshift fix {model} --recalibrate",
        ),
    ),
    reference="gzuidhof/nn-transfer issue 3",
)

SILENT = Cause(
    code="VS406",
    title="a layer that multiplies by 0",
    family=Family.STRUCTURE,
    short=(
        "The layer's own scale (weight) is 0 in every channel, so whatever comes in, only the "
        "offset comes out. Its statistics do not matter."
    ),
    signature="weight is exactly 0 in every channel.",
    why=(
        "Residual networks often start the last BatchNorm of each branch at 0, so that the branch "
        "begins silent. Here it has stayed so: the branch was never trained, or was pruned away."
    ),
    remedies=(
        Remedy(
            "If the branch was meant to work: train it",
            "are its parameters in the optimizer?",
            needs_training=True,
        ),
    ),
    reference=(
        "Goyal and others: Accurate, Large Minibatch SGD. arXiv 1706.02677, section 5.1 "
        "(zero-initialised gamma)"
    ),
)

TWICE = Cause(
    code="VS407",
    title="the same statistics under two names",
    family=Family.STRUCTURE,
    short=(
        "Two layers hold the same mean and variance to the last bit. Either they are one layer "
        "with two names, or one was copied over the other."
    ),
    signature=(
        "running_mean and running_var of two layers of the file are identical, and not at their "
        "initial values."
    ),
    why=(
        "A module that is used in two places is saved under both names; that is harmless, but see "
        "VS401 for what sharing does. A copy (of a branch, or of a teacher's layers) that was "
        "trained afterwards should have statistics of its own."
    ),
    remedies=(
        Remedy(
            "Find out which: the scan calls a copy stale, and statistics of the layer's own not",
            "varshift scan {model}",
        ),
    ),
    reference="PyTorch documentation, torch.nn.Module: state_dict of shared modules",
)

NON_FINITE_INPUT = Cause(
    code="VS408",
    title="weights or activations that are not finite",
    family=Family.STRUCTURE,
    short=(
        "What enters the layer is NaN or infinite, so that nothing behind it means anything. The "
        "stored statistics are not to blame, and no repair of them helps."
    ),
    signature=(
        "A variance measured in eval() is NaN or infinite while the buffers are finite; the first "
        "such layer stands right behind the weights that hold NaN, or where values overflow."
    ),
    why=(
        "Training diverged and the checkpoint was saved after that; or the file is damaged; or "
        "values overflow in a narrow dtype such as float16; or the data have another scale than "
        "in training."
    ),
    remedies=(
        Remedy(
            "Take an earlier checkpoint, from before the loss became NaN",
            "the report names the parameters that hold NaN or infinity",
        ),
        Remedy(
            "If no weight is named: look at dtype and scale",
            "save the weights as float32, or bfloat16 in place of float16; check that --data is "
            "normalised as in training",
        ),
    ),
    reference="PyTorch documentation, torch.autograd.set_detect_anomaly; torch.amp.GradScaler",
)

CAUSES = (SHARED, NO_STATISTICS, DEAD, EPS, PERMUTED, SILENT, TWICE, NON_FINITE_INPUT)
