"""VS207 to VS212: running statistics that are not those of these weights."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

_RECOMPUTE = Remedy(
    "Recompute the statistics; no training",
    "varshift fix {model} --recalibrate",
)
_TRAINING_DATA = Remedy(
    "Find out if it is the data: give those of training, with their augmentation, beside --data",
    "varshift scan {model} --train-data FILE",
)
_WU = 'Wu, Johnson: Rethinking "Batch" in BatchNorm. arXiv 2105.07576'

AVERAGED = Cause(
    code="VS207",
    title="averaged weights with other weights' buffers",
    family=Family.BUFFERS,
    short=(
        "These weights are an average over many training steps (EMA, SWA). The stored mean and "
        "variance were not recomputed for them: they belong to the weights of the last step, or "
        "are themselves an average over steps, which is not the same."
    ),
    signature=(
        "The stale factor T/R differs from 1, and the weights are known to be an average: by the "
        "name of the state dict (ema, swa, averaged), by its entry n_averaged, or because the "
        "file holds other weights with the same buffers to the last bit. Averaging removes noise "
        "from the weights, so that T is often below R."
    ),
    why=(
        "An average of weights is another network, whose layers receive other values. Most "
        "averaging code copies the buffers, and some averages them; neither gives the statistics "
        "of the averaged network. torch.optim.swa_utils.update_bn recomputes them, but with "
        "dropout on: use it only without dropout."
    ),
    remedies=(_RECOMPUTE,),
    reference=(
        "Izmailov, Podoprikhin, Garipov, Vetrov, Wilson: Averaging Weights Leads to Wider Optima "
        "and Better Generalization. UAI 2018, arXiv 1803.05407"
    ),
)

CHANGED_WEIGHTS = Cause(
    code="VS208",
    title="weights changed after the buffers were gathered",
    family=Family.BUFFERS,
    short=(
        "The weights before these layers were changed after training: pruned, rounded to few "
        "values, or merged with others. The stored mean and variance still describe the network "
        "before the change."
    ),
    signature=(
        "The stale factor T/R differs from 1 behind convolution or linear layers of which a good "
        "part of the weights are exactly 0 (pruned) or which hold only a few different values "
        "(quantised). In layers before the first changed one T/R is near 1."
    ),
    why=(
        "With weights removed or rounded, less or other variance reaches the next BatchNorm. It "
        "still divides by the old number, and the error adds up from layer to layer: it is often "
        "most of what pruning seems to cost."
    ),
    remedies=(
        Remedy(
            "Recompute the statistics; no training. --correct does not help here",
            "varshift fix {model} --recalibrate",
        ),
        Remedy("Train on for an epoch", "with the pruned weights kept at 0", needs_training=True),
    ),
    reference=(
        "Li, Wu, Su, Wang: EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning. "
        "ECCV 2020, arXiv 2007.02491"
    ),
)

FROZEN = Cause(
    code="VS209",
    title="frozen BatchNorm",
    family=Family.BUFFERS,
    short=(
        "These layers were in eval() while the rest of the network was trained, as is usual in "
        "fine-tuning. The network has learned with the stored values as they are. They look out "
        "of date, and they are right."
    ),
    signature=(
        "num_batches_tracked of these layers stands still while that of others has moved on, or "
        "the layers stay in eval() when the model is put in train(). The stale factor T/R may be "
        "far from 1; with labels, accuracy in eval() as it is beats accuracy with recomputed "
        "statistics."
    ),
    why=(
        "With frozen statistics BatchNorm is a fixed scaling, and the weights after it have been "
        "trained to it. Recomputing the statistics changes the scaling under their feet."
    ),
    remedies=(
        Remedy(
            "Leave them. With labels, Effect shows accuracy as it is and recalibrated",
            "varshift scan {model} --data FILE",
        ),
    ),
    reference=_WU,
)

STALE = Cause(
    code="VS210",
    title="stale buffers",
    family=Family.BUFFERS,
    short=(
        "The stored mean and variance are not those that this network, on these data, would gather "
        "in training. Either they are out of date, or the data are not what the network was "
        "trained on."
    ),
    signature=(
        "The layer's stale factor T/R differs from 1, overall or channel by channel, or the stored "
        "mean is off: a training pass over these data would gather other statistics than the "
        "checkpoint holds. Dropout is on in both, and has no part in it."
    ),
    why=(
        "Either the buffers are not those of these weights: a momentum too small to follow the "
        "last steps of training, or weights that were changed after the buffers were gathered. Or "
        "the training batches were not mixed, and held one class each (VS302): that looks the same "
        "until the data have class labels, by which varshift imitates such a training. Or "
        "the model was built with another dropout probability than in training: where one factor "
        "on the effect of dropout fits all layers, varshift names the probability. Or these "
        "data are not what the network was trained on: another preprocessing, or no augmentation "
        "where training had one. Recomputing is right in all cases but the last, where it can do "
        "harm. A narrower cause is named where the figures show one; here they do not."
    ),
    remedies=(
        _TRAINING_DATA,
        Remedy(
            "Find out if training batches were not mixed (VS302): give data with class labels, as "
            "labels in an array file or second in each batch",
            "varshift scan {model} --data FILE",
        ),
        Remedy(
            "If dropout had another probability in training: build the model with that one",
            "varshift scan {model} --data FILE --arch-arg p=0.2",
        ),
        Remedy(
            "If the data are right: recompute the statistics",
            "varshift fix {model} --recalibrate",
        ),
    ),
    reference=_WU,
)

HALF_FROZEN = Cause(
    code="VS211",
    title="half-frozen BatchNorm",
    family=Family.BUFFERS,
    short=(
        "The layer's own scale and offset were never trained, but its stored mean and variance "
        "went on changing. Whoever froze it froze one half only."
    ),
    signature=(
        "weight is exactly 1 and bias exactly 0 in every channel, or both are those of the "
        "pretrained file to the last bit (varshift diff shows it), while running_mean and "
        "running_var have moved."
    ),
    why=(
        "requires_grad=False stops the optimizer, not the running statistics: those are updated by "
        "every forward pass in train() mode. To freeze a BatchNorm layer, put it in eval() after "
        "every call of model.train(). If the statistics fit the data, nothing is wrong with the "
        "network as it is."
    ),
    remedies=(
        Remedy(
            "If the layer was meant to be frozen: freeze both halves",
            "override train() to call eval() on the BatchNorm layers",
            needs_training=True,
        ),
    ),
    reference="pytorch/pytorch issue 86590",
)

OUTLIERS = Cause(
    code="VS212",
    title="a few channels pulled away by single batches",
    family=Family.BUFFERS,
    short=(
        "In a few channels the stored variance is far above everything the data show, while the "
        "other channels agree. One bad batch is enough."
    ),
    signature=(
        "In at most a tenth of a layer's channels R is more than 8 times T; over the others the "
        "stale factor T/R is near 1."
    ),
    why=(
        "A training batch with an outlier, an overflow in half precision, or a corrupt sample "
        "enters the running average with a weight of momentum (0.1), and fades only by (1 - "
        "momentum) per batch. From a variance of 1,000,000 that takes over 100 batches."
    ),
    remedies=(
        _RECOMPUTE,
        Remedy(
            "Keep bad batches out",
            "check that inputs are finite and of usual size before the forward pass",
            needs_training=True,
        ),
    ),
    reference="pytorch/pytorch issues 88474 and 90342",
)

CAUSES = (AVERAGED, CHANGED_WEIGHTS, FROZEN, STALE, HALF_FROZEN, OUTLIERS)
