"""VS3xx: statistics gathered over batches that do not stand for the data."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

SMALL_BATCHES = Cause(
    code="VS301",
    title="small training batches",
    family=Family.BATCHES,
    short=(
        "The network was trained with only a few images per batch on each device. A few images "
        "spread less than all images do, so the stored variance is too small for eval()."
    ),
    signature=(
        "The stale factor T/R is above 1: what is stored is too small, where dropout makes it too "
        "large. Channel by channel R falls short of T by b/m, with the same m in every layer; the "
        "means agree. scan --train-batch-size measures the effect, as a factor named batch. "
        "BatchNorm1d on plain features does not show it."
    ),
    letters=(
        ("m", "images per batch on each device, in training"),
        ("b", "variance of the means of single images"),
    ),
    why=(
        "The values of one image are alike, so that the variance inside a batch lacks a part of "
        "what lies between images: half of it at 2 images a batch, an eighth at 8. Gradient "
        "accumulation does not help, nor does data parallel training without SyncBatchNorm: what "
        "counts is what one device sees at once. While training every image is also normalised "
        "together with its few neighbours, which eval() cannot imitate."
    ),
    remedies=(
        Remedy(
            "Recompute the statistics over all images; no training",
            "varshift fix {model} --recalibrate",
        ),
        Remedy(
            "Train with larger batches, or with another normalisation",
            "torch.nn.SyncBatchNorm over several devices, or torch.nn.GroupNorm",
            needs_training=True,
        ),
    ),
    reference=(
        "Singh, Shrivastava: EvalNorm: Estimating Batch Normalization Statistics for Evaluation. "
        "ICCV 2019, arXiv 1904.06031"
    ),
)

UNSORTED = Cause(
    code="VS302",
    title="training data not shuffled",
    family=Family.BATCHES,
    short=(
        "The training batches were not mixed: each held one class, one speaker, one patient or "
        "one domain. The stored variance is that inside such a batch, and the stored mean leans "
        "to the last ones."
    ),
    signature=(
        "At the first layer the stale factor T/R is above 1, BatchNorm1d included, and the stored "
        "means lean to one group. With class labels, or batches that come in an order, scan "
        "imitates such a training: batches of one group each, normalised by the batch, the last "
        "groups weighing most. That takes away most of the distance between stored and measured "
        "means and variances. The order of --data alone proves nothing: what counts is the loader "
        "of training."
    ),
    why=(
        "The running variance averages the variances inside the batches, and what lies between "
        "the batches is lost. The running mean forgets all but the last ten batches or so (at "
        "momentum 0.1), whatever they were."
    ),
    remedies=(
        Remedy(
            "Recompute the statistics over mixed data; no training",
            "varshift fix {model} --recalibrate",
        ),
        Remedy(
            "Shuffle",
            "DataLoader(..., shuffle=True), or a sampler that mixes the groups",
            needs_training=True,
        ),
    ),
    reference='Wu, Johnson: Rethinking "Batch" in BatchNorm. arXiv 2105.07576',
)

CAUSES = (SMALL_BATCHES, UNSORTED)
