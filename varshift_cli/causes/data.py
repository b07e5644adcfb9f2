"""VS5xx: it is the data, or it is not BatchNorm at all."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.records import Remedy

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
        "The first BatchNorm layers behind the input are off in nearly all channels, in mean, "
        "variance or both; layers behind them less, once those before them normalise by what they "
        "really get. With --train-data: the stale factor T/R is near 1 on the training data, and "
        "not on --data."
    ),
    why=(
        "Common mistakes: numbers from 0 to 255 where 0 to 1 was trained, or the other way round; "
        "the normalisation by mean and standard deviation forgotten or done twice; BGR in place "
        "of RGB; another size or crop. Or the data really come from elsewhere: another camera, "
        "hospital, microphone."
    ),
    remedies=(
        Remedy(
            "Make sure: give the data of training, with their augmentation, beside --data",
            "varshift scan {model} --train-data FILE",
        ),
        Remedy(
            "If the preprocessing differs: make it the same",
            "no repair of the statistics; they are right",
        ),
        Remedy(
            "If the data are really others: adapt the statistics, and compare accuracy on labels",
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
        "The stale factor T/R differs from 1 from the first layer on, by about the same in all its "
        "channels, and the means agree. Mixup in training makes it (2 alpha + 1)/(alpha + 1): 1.5 "
        "at alpha 1, 1.09 at alpha 0.1. Noise added to the inputs makes it smaller than 1."
    ),
    letters=(("alpha", "of mixup, whose mixing weights are drawn from Beta(alpha, alpha)"),),
    why=(
        "Mixing two images brings each nearer to the average of all, which leaves less variance; "
        "added noise makes it more. In eval() nothing is mixed or added. No dropout is to blame."
    ),
    remedies=(
        Remedy(
            "Scan with the data as training saw them, augmentation on: the shift then goes",
            "varshift scan {model} --data FILE.py:NAME",
        ),
        Remedy(
            "Or recompute on plain data, and compare accuracy on labels before and after",
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
        "In every layer the variance met in eval() is within 5 % of the stored one (a shift below "
        "1.05), and yet accuracy in eval() is below 95 % on these data. If train() is no better, "
        "and accuracy on the training data is high, that is ordinary overfitting."
    ),
    why=(
        "Overfitting, wrong labels, a mistake in the evaluation code, or other data. Measuring "
        "once more on the data where the network does badly tells whether BatchNorm plays a part "
        "there."
    ),
    remedies=(
        Remedy(
            "Scan the data on which it fails, with labels",
            "varshift scan {model} --data FILE",
        ),
    ),
    reference="the control: what varshift shows when BatchNorm holds",
)

CAUSES = (OTHER_DATA, AUGMENTATION, NOT_GUILTY)
