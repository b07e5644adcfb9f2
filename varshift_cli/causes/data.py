"""VS5xx: it is the data, or it is not BatchNorm at all."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

_OVERFITTING = "varshift scan {model} on held-out data as well, with labels"

OTHER_DATA = Cause(
    code="VS501",
    title="other data or preprocessing than in training",
    family=Family.DATA,
    short=(
        "What you feed the network now is not what it was trained on: the colours are in another "
        "order, the numbers are on another scale, or the pictures are of another kind. The stored "
        "values are right for the training data."
    ),
    signature=(
        "The first BatchNorm layers behind the input are off in nearly all channels, in mean and "
        "variance; further down less, once layers are normalised by what they really get. With "
        "--train-data: stale is near 1 on the training data and not on --data."
    ),
    why=(
        "Common mistakes: numbers from 0 to 255 where 0 to 1 was trained, or the other way round; "
        "the normalisation by mean and standard deviation forgotten or done twice; BGR in place "
        "of RGB; another size or crop. Or the data really come from elsewhere: another camera, "
        "hospital, microphone."
    ),
    remedies=(
        Remedy(
            "Compare with the training data",
            "varshift scan {model} with --train-data naming the loader of training",
        ),
        Remedy(
            "If the preprocessing differs: make it the same",
            "no repair of the statistics; they are right",
        ),
        Remedy(
            "If the data are really others: adapt the statistics to them, at your own measure",
            "varshift fix {model} --recalibrate",
        ),
    ),
    reference=(
        "Schneider and others: Improving robustness against common corruptions by covariate shift "
        "adaptation. NeurIPS 2020, arXiv 2006.16971"
    ),
)

AUGMENTATION = Cause(
    code="VS502",
    title="augmentation or mixup in training only",
    family=Family.DATA,
    short=(
        "While training the inputs were mixed or distorted; now they are plain. The stored values "
        "describe the distorted ones."
    ),
    signature=(
        "The stale factor T/R differs from 1 from the first layer on, by about the same factor in "
        "all its channels, and the means agree. Mixup in training makes T/R larger than 1: up to "
        "1.5 with Beta(1, 1). Noise added to the inputs makes it smaller than 1."
    ),
    why=(
        "Mixing two images brings each nearer to the average, which leaves (a + 1)/(2a + 1) of the "
        "variance with mixing weights from Beta(a, a). In eval() nothing is mixed. The network has "
        "no dropout to blame, and behaves as if it had the opposite of it."
    ),
    remedies=(
        Remedy(
            "Scan with the data as training saw them",
            "varshift scan {model} with --data naming the loader of training, augmentation on",
        ),
        Remedy(
            "Or recompute on plain data, and compare your own measure before and after",
            "varshift fix {model} --recalibrate",
        ),
    ),
    reference=(
        "Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization. ICLR 2018, "
        "arXiv 1710.09412; the variance factor follows from it"
    ),
)

NOT_GUILTY = Cause(
    code="VS503",
    title="BatchNorm is not the reason",
    family=Family.DATA,
    short=(
        "On these data every BatchNorm layer finds in eval() what it learned in training. If the "
        "network is still worse in eval() or on other data, the reason lies elsewhere."
    ),
    signature=(
        "Every layer's shift is below 1.05, and yet accuracy in eval() is below 95 % on these "
        "data. If train() is no better, and the training data do well, that is ordinary "
        "overfitting."
    ),
    why=(
        "Overfitting, wrong labels, a mistake in the evaluation code, or other data. Measuring "
        "once more on the data where the network does badly tells whether BatchNorm plays a part "
        "there."
    ),
    remedies=(Remedy("Look at the data where it fails", _OVERFITTING),),
    reference="the control: what varshift shows when BatchNorm holds",
)

CAUSES = (OTHER_DATA, AUGMENTATION, NOT_GUILTY)
