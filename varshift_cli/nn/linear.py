"""A linear layer with dropout in front of it, under the names that the linear layer had."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class DropoutLinear(nn.Linear):
    """``linear(dropout(x))`` with the parameters of an existing linear layer.

    The parameters are the same objects under the same names, so that state dicts and optimisers
    stay valid: dropout moves into a network without a key of its checkpoint changing.

    Shapes:
        (..., F) -> (..., O).

    Args:
        linear: The layer to stand in for.
        p: DROP probability, 0 to 1.
    """

    def __init__(self, linear: nn.Linear, p: float) -> None:
        # On meta: the parameters made here are replaced at once.
        super().__init__(
            linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta"
        )
        self.weight = linear.weight
        self.bias = linear.bias
        self.p = float(p)
        self.training = linear.training

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name for it
        """Dropout in training, then the linear map."""
        return super().forward(functional.dropout(input, self.p, self.training))

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{super().extra_repr()}, dropout p={self.p:g} before"
