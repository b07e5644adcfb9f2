"""VS14x: noise that does not do what its formula says."""

from __future__ import annotations

from varshift_cli.causes.cause import Cause, Family
from varshift_cli.causes.dropout import PAPER
from varshift_cli.records import Remedy

UNPREDICTED = Cause(
    code="VS140",
    title="a dropout that does not do what its formula says",
    family=Family.DROPOUT,
    short=(
        "How much variance a dropout adds can be worked out from the network with dropout off. "
        "Here that figure and the measured one differ by more than chance, so that something "
        "other than plain dropout is at work between it and the BatchNorm layer."
    ),
    signature=(
        "With one dropout alone switched on, the measured T differs from\n"
        "    C + sum_ij w_i w_j cov(m_i, m_j) mean(x_i x_j)\n"
        "by more than 10 % and 8 standard errors. The JSON report has C/T by this formula "
        "(predicted), beside the measured one, under layers[].prediction."
    ),
    letters=(
        ("x_i", "what enters the dropout, for input i of an output of the weights behind it"),
        ("w_i", "the weight by which it reaches that output"),
        ("m_i", "the random factor, of mean 1, by which dropout multiplies it"),
    ),
    why=(
        "The formula holds for every noise that multiplies by factors of mean 1 that do not depend "
        "on the input. It fails where the noise is another than its name and p say (a layer of the "
        "user's own, a p that changes from call to call), where it depends on the data, or where "
        "the way to BatchNorm is another in training than in eval(). The measured figures stand "
        "either way; only the explanation is in doubt."
    ),
    remedies=(
        Remedy(
            "Look at the layers between the dropout and this BatchNorm",
            "what is done there under `if self.training` besides the dropout?",
        ),
        Remedy(
            "Look at the dropout itself",
            "are its class and its p, as the scan shows them, those of training?",
        ),
    ),
    reference=f"{PAPER}, eq. 7-14, of which the formula is the general form",
)

CAUSES = (UNPREDICTED,)
