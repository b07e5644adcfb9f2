"""VS201 to VS206: running statistics that were not filled as they should have been."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

_RECOMPUTE = Remedy(
    "Recompute the statistics; no training",
    "varshift fix {model} --recalibrate",
)

NEVER_UPDATED = Cause(
    code="VS201",
    title="buffers never updated",
    family=Family.BUFFERS,
    short=(
        "BatchNorm stores the mean and variance of its inputs while the network trains, and uses "
        "them in eval(). Here they still have the values that every new layer starts with: nothing "
        "was ever stored."
    ),
    signature=(
        "In every channel running_mean is exactly 0 and running_var exactly 1, and "
        "num_batches_tracked is 0 or missing."
    ),
    why=(
        "No training step ever reached these buffers: they were not in the checkpoint that was "
        "loaded (renamed keys with strict=False), an averaged model copied only the parameters, or "
        "F.batch_norm was called with other buffers. Then eval() is broken. Or the network was "
        "trained with these layers in eval() mode from the start. Then they are right, and "
        "recomputing them destroys the network. Only labels tell the two apart."
    ),
    remedies=(
        Remedy(
            "Find out which: with labelled data, Effect shows accuracy as it is and recalibrated",
            "varshift scan {model} --data FILE",
        ),
        Remedy(
            "If recomputing is better: recompute",
            "varshift fix {model} --recalibrate",
        ),
    ),
    reference="PyTorch documentation, torch.nn.BatchNorm2d: initial running statistics are 0 and 1",
)

NON_FINITE = Cause(
    code="VS202",
    title="buffers that are not finite",
    family=Family.BUFFERS,
    short=(
        "The stored mean or variance is NaN, infinite, or a variance below 0. In eval() the layer "
        "divides by it, and everything after it is NaN or nonsense."
    ),
    signature="running_mean or running_var holds NaN or infinity, or a variance is negative.",
    why=(
        "One training batch overflowed or held a NaN. A gradient scaler skips the optimizer step "
        "of such a batch, but BatchNorm has updated its buffers by then, and a running average "
        "never forgets a NaN. In train() nothing shows, as the buffers are not read; in eval() "
        "every output is NaN."
    ),
    remedies=(
        Remedy(
            "Recompute the statistics, if the weights are finite",
            "varshift fix {model} --recalibrate",
        ),
        Remedy(
            "Stop it from coming back",
            "skip non-finite batches before the forward pass, not after it",
            needs_training=True,
        ),
    ),
    reference="pytorch/pytorch issues 88474 and 90342",
)

MISSING = Cause(
    code="VS203",
    title="buffers missing from the checkpoint",
    family=Family.BUFFERS,
    short=(
        "The file holds no stored mean and variance for this layer, so it falls back on those of a "
        "new layer, which fit nothing."
    ),
    signature=(
        "The architecture has a BatchNorm layer with running statistics, and the checkpoint has no "
        "running_mean or running_var for it."
    ),
    why=(
        "The checkpoint was written from parameters() alone, the layer has another name in the "
        "architecture, or another state dict in the file is meant. Loading with strict=False "
        "leaves such a layer at mean 0 and variance 1."
    ),
    remedies=(
        Remedy(
            "Name the right state dict, where the file holds more than one",
            "varshift scan {model} --key NAME",
        ),
        Remedy(
            "Compare the layer names in the file with those of the model",
            "varshift lint {model} --all",
        ),
        Remedy(
            "Recompute and save them from Python",
            "varshift_cli.recalibrate(model, batches), then torch.save(model.state_dict(), ...)",
        ),
    ),
    reference="PyTorch documentation, torch.nn.Module.load_state_dict: strict",
)

TOO_FEW = Cause(
    code="VS204",
    title="buffers updated too few times",
    family=Family.BUFFERS,
    short=(
        "The stored mean and variance start at 0 and 1 and move a little with every training "
        "batch. Training stopped, or was reset, before they had arrived, so they still hold a "
        "part of those first values."
    ),
    signature=(
        "After k batches, (1 - momentum)^k of the initial values is left: 35 % at momentum 0.1 "
        "after 10 batches, 1 % after 44. In all channels of all layers the stored values went the "
        "same share s of the way: R = (1 - s) + s T, and the stored mean is s times the measured "
        "one."
    ),
    letters=(
        ("k", "the layer's num_batches_tracked"),
        ("s", "1 - (1 - momentum)^k; where the count is unknown, the share that fits best"),
    ),
    why=(
        "The statistics were reset and then refreshed with a handful of batches, the training was "
        "very short, or the momentum is so small (0.001) that thousands of batches are needed. "
        "TensorFlow's momentum 0.99 is PyTorch's 0.01."
    ),
    remedies=(
        _RECOMPUTE,
        Remedy("Train longer, or use a larger momentum", "momentum=0.1", needs_training=True),
    ),
    reference=(
        "PyTorch documentation, torch.nn.BatchNorm2d: new = (1 - momentum) old + momentum observed"
    ),
)

ONE_BATCH = Cause(
    code="VS205",
    title="statistics of a single batch (momentum near 1)",
    family=Family.BUFFERS,
    short=(
        "The stored mean and variance are those of the last training batch alone, not an average "
        "over many. Which numbers they are is a matter of luck."
    ),
    signature=(
        "The layer's momentum is near 1. The channels' stored values scatter around what is "
        "measured, some above and some below, by as much as those of single batches do; the "
        "layer's mean ratio is near 1."
    ),
    why=(
        "PyTorch's momentum is the weight of the new batch; in TensorFlow and Keras it is the "
        "weight of the old value. A 0.99 copied from there makes PyTorch forget everything but the "
        "last batch. While training nothing shows, as the stored values are not used."
    ),
    remedies=(
        _RECOMPUTE,
        Remedy(
            "Give 1 minus that number before training again",
            "momentum=0.01 in PyTorch for momentum=0.99 in TensorFlow",
            needs_training=True,
        ),
    ),
    reference="PyTorch documentation, torch.nn.BatchNorm2d: the note on momentum",
)

NO_COUNT = Cause(
    code="VS206",
    title="update counter at 0",
    family=Family.BUFFERS,
    short=(
        "The file says that the stored mean and variance were never updated, yet they have moved "
        "from their initial values. Usually harmless."
    ),
    signature="num_batches_tracked is 0, and running_mean or running_var is not at its initial 0 "
    "and 1.",
    why=(
        "The checkpoint was converted from another framework or saved by a very old torch, which "
        "had no counter. It matters only for layers with momentum=None: they average over all "
        "batches counted, and the first training step will replace the stored values altogether."
    ),
    remedies=(
        Remedy(
            "Nothing, unless a layer has momentum=None and is trained further",
            "then set num_batches_tracked to the number of batches the values stand for",
        ),
    ),
    reference="PyTorch source, torch/nn/modules/batchnorm.py: version 2 of the state dict",
)

CAUSES = (NEVER_UPDATED, NON_FINITE, MISSING, TOO_FEW, ONE_BATCH, NO_COUNT)
