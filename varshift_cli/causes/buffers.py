"""VS2xx: running statistics that are wrong by themselves."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

NEVER_UPDATED = Cause(
    code="VS201",
    title="buffers never updated",
    family=Family.BUFFERS,
    signature=(
        "In every channel running_mean is exactly 0 and running_var exactly 1, and "
        "num_batches_tracked is 0 or missing."
    ),
    why=(
        "No training step ever reached these buffers: they were not in the checkpoint that was "
        "loaded (renamed keys with strict=False), an averaged model copied only the parameters, or "
        "BatchNorm was called functionally. Then eval() is broken. Or the network was trained with "
        "these layers in eval() mode from the start. Then they are right, and recomputing them "
        "destroys the network. Only labels tell the two apart."
    ),
    remedies=(
        Remedy(
            "Find out which of the two it is",
            "varshift scan {model} with labelled data: Effect shows the accuracy as it is and "
            "with recomputed statistics",
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
            "Name the right state dict",
            "varshift scan {model} --key NAME, where the file holds more than one",
        ),
        Remedy(
            "Compare the names",
            "the keys the architecture expects with the keys in the file",
        ),
        Remedy(
            "Recompute and save them from Python",
            "varshift_cli.recalibrate(model, batches), then torch.save(model.state_dict(), ...)",
        ),
    ),
    reference="PyTorch documentation, torch.nn.Module.load_state_dict: strict",
)

STALE = Cause(
    code="VS210",
    title="stale buffers",
    family=Family.BUFFERS,
    signature=(
        "The layer's stale factor T/R differs from 1: a training pass over these data would gather "
        "other statistics than the checkpoint holds. Dropout has no part in it."
    ),
    why=(
        "Either the buffers are not those of these weights: too few updates, a momentum too small, "
        "weights averaged (EMA, SWA), pruned or quantised after the buffers were gathered, very "
        "small training batches. Or these data are not what the network was trained on: another "
        "preprocessing, or no augmentation where training had one. Recomputing is right in the "
        "first case and can do harm in the second."
    ),
    remedies=(
        Remedy(
            "Make sure of the data first",
            "varshift scan {model} on training data, with the preprocessing and augmentation of "
            "training",
        ),
        Remedy(
            "If the data are right: recompute the statistics",
            "varshift fix {model} --recalibrate",
        ),
    ),
    reference='Wu, Johnson: Rethinking "Batch" in BatchNorm. arXiv 2105.07576',
)

CAUSES = (NEVER_UPDATED, NON_FINITE, MISSING, STALE)
