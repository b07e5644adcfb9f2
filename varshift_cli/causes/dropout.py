"""VS1xx: dropout and other noise before BatchNorm."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

PAPER = (
    "Li, Chen, Hu, Yang: Understanding the Disharmony between Dropout and Batch Normalization "
    "by Variance Shift. CVPR 2019, arXiv 1801.05134"
)

_RECALIBRATE = Remedy(
    "Recompute the statistics with dropout off; no training",
    "varshift fix {model} --recalibrate",
)
_MOVE = Remedy(
    "Move the dropout behind the last BatchNorm",
    "one dropout after all BatchNorm layers, before the last linear layer: it then reaches no "
    "BatchNorm at all (Li et al., tables 4 and 5)",
    needs_training=True,
)
_LOWER = Remedy(
    "Drop less",
    "a smaller drop probability: the factor grows towards 1 as p does",
    needs_training=True,
)
_UNIFORM = Remedy(
    "Use a noise that adds less variance",
    "x + x * r with r uniform in (-beta, beta): for inputs of mean 0 the factor is "
    "3 / (3 + beta^2), 0.997 at beta 0.1 (Li et al., eq. 15, table 6)",
    needs_training=True,
)

_UPDATE_BN = (
    "torch.optim.swa_utils.update_bn does not help: it puts the whole model in train() and so "
    "gathers the same statistics again, with dropout on."
)

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
        "be), and the layer's dropout factor C/T is below 1. Straight behind the dropout it is\n"
        "    v / ((c^2 + v)/p - c^2)\n"
        "with p the keep probability and c, v the mean and variance of what enters the dropout: "
        "p itself where c is 0, less where it is not. The stale factor T/R is near 1. The report "
        "gives c, v and this Delta for each dropout, and the measured factor beside it, under "
        "layers[].prediction."
    ),
    why=(
        "Dropout divides what it keeps by p. That preserves the mean but adds the variance "
        "(1/p - 1)(c^2 + v). BatchNorm's running variance was gathered with that noise; in eval() "
        "the noise is gone and BatchNorm still divides by the larger number, so that what leaves "
        "it is too small.\n" + _UPDATE_BN
    ),
    remedies=(_RECALIBRATE, _MOVE, _UNIFORM, _LOWER),
    reference=f"{PAPER}, eq. 7-8 (case a)",
)

THROUGH_WEIGHTS = Cause(
    code="VS102",
    title="dropout before BatchNorm through weights",
    family=Family.DROPOUT,
    short=(
        "A dropout feeds this BatchNorm layer through a linear or convolution layer. While "
        "training, the layer learned the spread of inputs that held the dropout's noise. In eval() "
        "that noise is gone, and the layer still divides by the spread it learned."
    ),
    signature=(
        "A dropout reaches the layer through a linear or convolution layer, and the layer's "
        "dropout factor C/T differs from 1. If all d inputs of the weights w have mean c, variance "
        "v and correlation rho, it is\n"
        "    (v + v rho (d cos2 - 1)) / ((c^2 + v)/p - c^2 + v rho (d cos2 - 1))\n"
        "with cos2 = (sum w)^2 / (d sum w^2) and d = input channels x kernel size. In general the "
        "variance that dropout adds to an output is (1/p - 1) sum_i w_i^2 E[x_i^2]. The report "
        "gives c, v, rho, cos2, d, this Delta and the general prediction for each dropout, and the "
        "measured factor beside them, under layers[].prediction."
    ),
    why=(
        "As with dropout straight before BatchNorm, but the weights average over d noises: the "
        "larger d cos2 and rho, the less is left of them. Wide layers therefore suffer less than "
        "narrow ones.\n" + _UPDATE_BN
    ),
    remedies=(_RECALIBRATE, _MOVE, _UNIFORM, _LOWER),
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
        "A layer that reads a residual sum is reached by a noise that drops a whole branch f of a "
        "sample at once, and its dropout factor C/T is below 1. The variance that a branch adds "
        "while training is (1/p - 1) E[f^2], with p the share of samples that keep it; the square "
        "of the branch's mean counts too. It adds up block after block."
    ),
    why=(
        "As with dropout, but the noise hits all channels and positions of a sample together, so "
        "that no convolution averages it away: the shift is larger than that of element-wise "
        "dropout of the same rate. A branch that is dropped without being scaled up by 1/p moves "
        "the mean as well.\n" + _UPDATE_BN
    ),
    remedies=(
        _RECALIBRATE,
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
        "is dropped without being scaled up. Between the train pass T and the clean pass C the "
        "layer's mean moves by more than a tenth of its standard deviation, and not only its "
        "variance."
    ),
    why=(
        "Ordinary dropout scales what it keeps so that the mean stays. AlphaDropout keeps the mean "
        "only for inputs of mean 0 and variance 1, which the outputs of a SELU layer are meant to "
        "have and those of a ReLU layer do not have; other noise may not try to at all."
    ),
    remedies=(
        _RECALIBRATE,
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

INHERITED = Cause(
    code="VS110",
    title="inherited from BatchNorm layers upstream",
    family=Family.INHERITED,
    short=(
        "Nothing need be wrong with this layer. A BatchNorm layer before it passes on values of "
        "the wrong scale in eval(), and this layer only receives them."
    ),
    signature=(
        "The layer's inherited factor E/C differs from 1: its input has another variance when the "
        "layers before it normalise by their running statistics than when they normalise by what "
        "they really receive."
    ),
    why=(
        "The statistics of layers further up are off, so their outputs have the wrong scale in "
        "eval(), and this layer receives them. Its own statistics may be sound."
    ),
    remedies=(
        Remedy(
            "Repair the layers upstream; nothing is to be done here",
            "varshift fix {model} --recalibrate",
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
        "different inputs."
    ),
    why=(
        "Something random stays on in eval(). Most often it is torch.nn.functional.dropout called "
        "without its training argument, whose default is True; or torch.rand in forward() without "
        "a look at self.training. The network's predictions then differ from call to call, and no "
        "statistics describe it."
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
        "A forward with every flag in train and all known noise off draws random numbers, or "
        "gives a layer another input than eval() does. The stale and dropout factors of the "
        "layers behind it are unknown; the shift itself is measured."
    ),
    why=(
        "A layer of your own draws under `if self.training`, or a function such as drop_path is "
        "called with training=self.training. Its class is not among those known by name "
        "(DropPath, StochasticDepth, DropBlock and the like), so that it stayed off in the pass "
        "that stands for training."
    ),
    remedies=(
        Remedy(
            "Name the class that draws",
            "varshift scan {model} --noise FILE.py:Class, or noise = [...] in the settings file",
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
        "Within layers, ln(R/C) does not follow ln(T/C): the slope is near 0, where buffers "
        "gathered with dropout on give 1. Stale and dropout factors differ from 1 and cancel."
    ),
    why=(
        "The running statistics were recomputed with dropout off, or BatchNorm was frozen while "
        "dropout was trained. That is what eval() needs: there is nothing to repair, and repairing "
        "it by difference once more would do harm."
    ),
    remedies=(),
    reference="the regression is varshift's; see `buffers` in the report",
)

CAUSES = (
    STRAIGHT,
    THROUGH_WEIGHTS,
    STOCHASTIC_DEPTH,
    MEAN_MOVING,
    INHERITED,
    IGNORES_EVAL,
    UNREGISTERED,
    ALREADY_REPAIRED,
)
