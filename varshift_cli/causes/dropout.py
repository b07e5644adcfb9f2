"""VS1xx: dropout and other noise before BatchNorm."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

PAPER = (
    "Li, Chen, Hu, Yang: Understanding the Disharmony between Dropout and Batch Normalization "
    "by Variance Shift. CVPR 2019, arXiv 1801.05134"
)

_RECALIBRATE = Remedy(
    "Recompute the statistics with dropout off: right if --data are like the training data",
    "varshift fix {model} --recalibrate",
)
_CORRECT = Remedy(
    "Or take out of them only what dropout put in: safer if they are not",
    "varshift fix {model} --correct",
)
_MOVE = Remedy(
    "Move the dropout behind the last BatchNorm",
    "to before the last linear layer: it then reaches no BatchNorm (Li et al., tables 4, 5)",
    needs_training=True,
)
_LOWER = Remedy(
    "Drop less",
    "the shift shrinks with the p of the dropout",
    needs_training=True,
)
_UNIFORM = Remedy(
    "Use a noise that adds less variance",
    "varshift_cli.Uout(0.1) multiplies by 0.9 to 1.1 at random (Li et al., eq. 15, table 6)",
    needs_training=True,
)

_UPDATE_BN = (
    "torch.optim.swa_utils.update_bn does not help: it gathers the statistics again with dropout "
    "on."
)
_KEEP = ("keep", "share of the values that is kept, 1 minus the p of torch.nn.Dropout")

STRAIGHT = Cause(
    code="VS101",
    title="dropout straight before BatchNorm",
    family=Family.DROPOUT,
    short=(
        "A dropout feeds this BatchNorm layer. While training, the layer learned how widely its "
        "noisy inputs spread. In eval() the noise is gone and the inputs spread less than the "
        "layer expects, so what it passes on is too small."
    ),
    signature=(
        "A dropout reaches the layer with no weights between (activations, pooling and sums may "
        "be), its dropout factor C/T is below 1, unless another dropout further up works against "
        "it, and its stale factor T/R is near 1. Straight behind the dropout, C/T is\n"
        "    v / ((c^2 + v)/keep - c^2)\n"
        "which is keep where c is 0, and less where it is not. The JSON report has it as delta, "
        "beside the measured figure, under layers[].prediction."
    ),
    letters=(_KEEP, ("c, v", "mean and variance of what enters the dropout")),
    why=(
        "Dropout scales up what it keeps. That preserves the mean, but the variance grows. "
        "BatchNorm's running variance was gathered with that noise; in eval() the noise is gone "
        "and BatchNorm still divides by the larger number.\n" + _UPDATE_BN
    ),
    remedies=(_RECALIBRATE, _CORRECT, _MOVE, _UNIFORM, _LOWER),
    reference=f"{PAPER}, eq. 7-8 (case a)",
)

THROUGH_WEIGHTS = Cause(
    code="VS102",
    title="dropout before BatchNorm through weights",
    family=Family.DROPOUT,
    short=(
        "A dropout feeds this BatchNorm layer through a linear or convolution layer. While "
        "training, the layer learned how widely its noisy inputs spread. In eval() the noise is "
        "gone, and the layer still divides by the spread it learned."
    ),
    signature=(
        "A dropout reaches the layer through a linear or convolution layer, and its dropout factor "
        "C/T differs from 1. The variance that dropout adds to an output of those weights is\n"
        "    (1/keep - 1) sum_i w_i^2 mean(x_i^2)\n"
        "If all inputs have the same c, v and rho, C/T is\n"
        "    (v + v rho (d cos2 - 1)) / ((c^2 + v)/keep - c^2 + v rho (d cos2 - 1))\n"
        "The JSON report has C/T by both (predicted, delta), beside the measured one, under "
        "layers[].prediction."
    ),
    letters=(
        _KEEP,
        ("w_i, x_i", "weight i of an output, and the input that it multiplies"),
        ("c, v, rho", "mean and variance of an input, and correlation of two inputs"),
        (
            "d, cos2",
            "inputs of an output (channels x kernel size); (sum_i w_i)^2 / (d sum_i w_i^2)",
        ),
    ),
    why=(
        "As with dropout straight before BatchNorm (VS101), but each output sums over many inputs. "
        "Where inputs are correlated and weights have one sign, signals add up and noises average "
        "out, which leaves little of the shift: wide layers suffer less than narrow ones.\n"
        + _UPDATE_BN
    ),
    remedies=(_RECALIBRATE, _CORRECT, _MOVE, _UNIFORM, _LOWER),
    reference=f"{PAPER}, eq. 9-14 (case b)",
)

STOCHASTIC_DEPTH = Cause(
    code="VS103",
    title="stochastic depth before BatchNorm",
    family=Family.DROPOUT,
    short=(
        "While training, whole branches of the network are dropped at random (DropPath, "
        "StochasticDepth). BatchNorm layers that read the sum of the branches learned a spread "
        "that holds this coming and going; in eval() no branch is ever missing."
    ),
    signature=(
        "A layer that reads a residual sum is reached by a noise that drops a whole branch of a "
        "sample at once, and its dropout factor C/T is below 1. The variance that dropping adds is "
        "(1/keep - 1) mean(f^2): the branch's mean counts, not only its variance. It adds up block "
        "after block."
    ),
    letters=(
        ("keep", "share of the samples for which the branch is kept"),
        ("f", "what the branch adds to the sum"),
    ),
    why=(
        "As with dropout, but the noise hits all channels and positions of a sample together, so "
        "that no convolution averages it away: the shift is larger than that of element-wise "
        "dropout of the same rate. A branch that is dropped without being scaled up where it is "
        "kept moves the mean as well.\n" + _UPDATE_BN
    ),
    remedies=(
        _RECALIBRATE,
        _CORRECT,
        Remedy(
            "Switch it off for the last epochs of training",
            "drop rate 0 in the last few epochs: the running statistics forget the noise within "
            "about 50 updates at momentum 0.1",
            needs_training=True,
        ),
        _LOWER,
    ),
    reference=(
        "Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth. ECCV 2016, "
        "arXiv 1603.09382; the formula by the law of total variance"
    ),
)

MEAN_MOVING = Cause(
    code="VS104",
    title="noise that moves the mean before BatchNorm",
    family=Family.DROPOUT,
    short=(
        "A noise before this layer changes the average of its inputs, not only their spread. "
        "In eval() the noise is gone, and both the stored mean and the stored variance are off."
    ),
    signature=(
        "The layer is reached by AlphaDropout, RReLU, a noise layer of your own, or a branch that "
        "is dropped without being scaled up. With it on and with it off, the mean of what enters "
        "the layer differs by more than a tenth of its standard deviation, and the dropout factor "
        "C/T from 1."
    ),
    why=(
        "Ordinary dropout scales up what it keeps so that the mean stays. AlphaDropout keeps the "
        "mean only for inputs of mean 0 and variance 1, which the outputs of a SELU layer are "
        "meant to have and those of a ReLU layer do not have; other noise may not try to at all."
    ),
    remedies=(
        _RECALIBRATE,
        _CORRECT,
        Remedy(
            "Use ordinary dropout where the inputs are not those of a SELU network",
            "torch.nn.Dropout in place of torch.nn.AlphaDropout, behind the last BatchNorm",
            needs_training=True,
        ),
        _MOVE,
    ),
    reference=(
        "Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks. NeurIPS 2017, "
        "arXiv 1706.02515"
    ),
)

MEAN_OFF = Cause(
    code="VS105",
    title="dropout that moves the mean before BatchNorm",
    family=Family.DROPOUT,
    short=(
        "Dropout keeps the mean of its own output, but not of what a step that is not linear makes "
        "of it, such as a maximum. This BatchNorm learned its running mean with that in it; in "
        "eval() the noise is gone, and the running mean is wrong."
    ),
    signature=(
        "mean_shift is above 0.4: the mean of what enters in eval(), less the running mean, in "
        "units of sqrt(running_var + eps), root mean square over channels. Switching dropout off "
        "alone moves the mean by at least half of that. The variance may hardly change, so that a "
        "scan with --max-shift alone, a limit on variances, can pass."
    ),
    why=(
        "The maximum over many noisy values is on average larger than the maximum over their "
        "means. So dropout before max pooling (over points, time or space) raises the mean of all "
        "that follows; other steps that are not linear may move it either way."
    ),
    remedies=(
        _RECALIBRATE,
        _CORRECT,
        Remedy(
            "Catch it in CI, beside a repair: limit the answers that recalibration would change",
            "max-changed-predictions = 0.05 in varshift.toml (5 % of the samples), with max-shift",
        ),
        _MOVE,
    ),
    reference="Jensen's inequality: the maximum is convex, so noise of mean 0 can only raise it",
)

INHERITED = Cause(
    code="VS110",
    title="inherited from BatchNorm layers upstream",
    family=Family.INHERITED,
    short=(
        "A BatchNorm layer before this one passes on values of the wrong scale in eval(), and this "
        "layer receives them. Nothing need be wrong with the layer itself."
    ),
    signature=(
        "The layer's inherited factor E/C differs from 1: its input has another variance when the "
        "layers before it normalise by their stored statistics than when they normalise by what "
        "they really receive. The scan names the causes of those layers. Where a layer is off by "
        "itself as well, its stale and dropout factors multiplied differ from 1: that is what E/R "
        "will be once the layers above are repaired, and it stays until this one is repaired too."
    ),
    why=(
        "The statistics of layers further up are off, so their outputs have the wrong scale in "
        "eval(), and this layer receives them. Its own statistics may be sound."
    ),
    remedies=(
        Remedy(
            "Repair the layers upstream, by their own causes; this one only where it is off by "
            "itself as well. varshift fix does both",
            "varshift fix {model}",
        ),
    ),
    reference=f"{PAPER}, fig. 4 (where it adds to the rest; the split is varshift's)",
)

IGNORES_EVAL = Cause(
    code="VS120",
    title="noise that ignores eval()",
    family=Family.NOISE,
    short=(
        "Something random in the network stays on after eval(). The same input then gives another "
        "output each time, and no stored statistics can fit it."
    ),
    signature=(
        "Two passes in eval() over the same data, with different random seeds, give this layer "
        "different inputs; or a dropout is called with training=True in eval()."
    ),
    why=(
        "Most often it is torch.nn.functional.dropout called without its training argument, whose "
        "default is True; or torch.rand in forward() without a look at self.training."
    ),
    remedies=(
        Remedy("Pass the mode on", "F.dropout(x, p, training=self.training) in forward()"),
        Remedy("Use the module", "a torch.nn.Dropout made in __init__() follows eval() by itself"),
    ),
    reference="PyTorch documentation, torch.nn.functional.dropout: training defaults to True",
)

UNREGISTERED = Cause(
    code="VS121",
    title="noise that is not registered",
    family=Family.NOISE,
    short=(
        "In train() the network draws random numbers, or takes another path, in a place that "
        "varshift does not know as noise. What dropout does behind it cannot be told."
    ),
    signature=(
        "A forward pass with every module in train(), but known noise off and BatchNorm held as in "
        "eval(), draws random numbers, or gives a layer another input than eval() does. The stale "
        "factor T/R and the dropout factor C/T of the layers behind it are unknown; E/R, how far "
        "off they are, is measured."
    ),
    why=(
        "A layer of your own draws under `if self.training`, or a function such as drop_path is "
        "called with training=self.training. Its class is not among those known by name "
        "(DropPath, StochasticDepth, DropBlock and the like), so that it stayed off where varshift "
        "imitates training."
    ),
    remedies=(
        Remedy(
            "Name the class that draws (noise = [...] in varshift.toml does the same)",
            "varshift scan {model} --noise FILE.py:CLASS",
        ),
        Remedy(
            "Give the function a module of its own",
            "a DropPath module in __init__() is known by its name",
        ),
    ),
    reference="the probe is varshift's",
)

ALREADY_REPAIRED = Cause(
    code="VS130",
    title="already repaired: the buffers describe the network with dropout off",
    family=Family.DROPOUT,
    short=(
        "The stored statistics were taken with dropout off, which is what eval() needs. Leave them."
    ),
    signature=(
        "Over the channels of a layer, ln(R/C) does not rise with ln(T/C): the slope is near 0, "
        "where statistics gathered with dropout on give 1. The stale factor T/R and the dropout "
        "factor C/T differ from 1 and cancel."
    ),
    why=(
        "The running statistics were recomputed with dropout off, or BatchNorm was frozen while "
        "dropout was trained. varshift fix --correct would take out a second time what is gone "
        "already, and writes nothing here."
    ),
    remedies=(Remedy("Nothing", "leave the statistics as they are"),),
    reference="the regression is varshift's; see `buffers` in the report",
)

CAUSES = (
    STRAIGHT,
    THROUGH_WEIGHTS,
    STOCHASTIC_DEPTH,
    MEAN_MOVING,
    MEAN_OFF,
    INHERITED,
    IGNORES_EVAL,
    UNREGISTERED,
    ALREADY_REPAIRED,
)
