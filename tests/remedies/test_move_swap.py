"""move_dropout and swap_dropout: what they change, what they leave, what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import ConvNet, Mlp, warmed_up
from varshift_cli import (
    DropoutLinear,
    GaussianDropout,
    Uout,
    UsageError,
    move_dropout,
    scan,
    swap_dropout,
)


def kinds(model: nn.Module, kind: type) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


def test_move_takes_dropout_away_and_puts_one_before_the_last_linear_layer() -> None:
    """Three dropouts before the head become one; those behind no BatchNorm are not touched."""
    model = Mlp(p=0.4)
    changes = move_dropout(model)
    # The last dropout stands behind the last BN already, and stays.
    assert [each.name for each in changes] == ["body.3", "body.7", "head"]
    assert changes[0].before == "Dropout(p=0.4, inplace=False)"
    assert changes[0].after == "Identity()"
    assert changes[-1].after.startswith("DropoutLinear(")
    assert kinds(model, nn.Dropout) == ["body.11"]
    assert isinstance(model.head, DropoutLinear)
    assert model.head.p == 0.4


def test_moved_dropout_moves_no_batch_norm() -> None:
    """After the move the dropout factor of every layer is exactly 1, and eval() is unchanged."""
    torch.manual_seed(0)
    x = torch.randn(200, 12)
    model = warmed_up(Mlp(), x)
    before = model(x)
    move_dropout(model)
    assert torch.equal(model.eval()(x), before)
    report = scan(warmed_up(model, x), x)
    assert {layer.factors.dropout for layer in report.layers} == {1.0}
    assert any(dropout.kind == "dropout" and not dropout.reaches for dropout in report.dropouts)


def test_no_name_of_a_checkpoint_changes() -> None:
    """State dicts fit both ways; parameters are the same objects, so optimisers stay valid."""
    model = Mlp()
    keys, parameters = list(model.state_dict()), list(model.parameters())
    old = copy.deepcopy(model.state_dict())
    move_dropout(model, p=0.1)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    model.load_state_dict(old)
    optimizer = torch.optim.SGD(parameters, 0.1)
    model.train()(torch.randn(8, 12)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.state_dict()["head.weight"], old["head.weight"])


def test_dropout_linear_is_dropout_then_linear() -> None:
    """In training it drops its input, in eval it is the linear layer."""
    torch.manual_seed(0)
    linear = nn.Linear(6, 4)
    layer = DropoutLinear(linear, 0.5)
    x = torch.randn(3, 6)
    assert torch.equal(layer.eval()(x), linear(x))
    torch.manual_seed(1)
    dropped = functional.dropout(x, 0.5, True)
    torch.manual_seed(1)
    assert torch.equal(layer.train()(x), linear(dropped))
    assert "dropout p=0.5" in repr(layer)
    assert DropoutLinear(nn.Linear(6, 4, bias=False), 0.5).bias is None


@pytest.mark.parametrize("new", [Uout(0.1), GaussianDropout(0.3), nn.Dropout(0.1), nn.Identity()])
def test_swap_puts_a_copy_in_every_place(new: nn.Module) -> None:
    """Every dropout before the last BatchNorm, each a copy of its own, in its old mode."""
    model = Mlp().eval()
    model.body[3].train()
    changes = swap_dropout(model, new)
    assert [each.name for each in changes] == ["body.3", "body.7"]
    assert type(model.body[3]) is type(model.body[7]) is type(new)
    assert model.body[3] is not model.body[7]
    assert model.body[3] is not new
    assert (model.body[3].training, model.body[7].training) == (True, False)
    assert isinstance(model.body[11], nn.Dropout)


def test_swapped_noise_is_seen_and_does_what_it_says() -> None:
    """After swap_dropout(model, Uout(0.9)) a scan finds uout, and its prediction holds."""
    torch.manual_seed(0)
    x = torch.randn(600, 12)
    model = Mlp(depth=2)
    swap_dropout(model, Uout(0.9))
    report = scan(warmed_up(model, x), list(x.split(100)))
    assert report.dropouts[0].kind == "uout"
    assert report.layers[1].factors.dropout is not None
    assert report.layers[1].factors.dropout < 0.95


def test_names_choose() -> None:
    """Only those named, also behind the last BatchNorm; a module that is no dropout is refused."""
    model = Mlp()
    assert [each.name for each in swap_dropout(model, Uout(0.1), names=["body.11"])] == ["body.11"]
    with pytest.raises(UsageError, match=r"no module 'body\.99'"):
        swap_dropout(model, Uout(0.1), names=["body.99"])
    with pytest.raises(UsageError, match="no dropout module but Linear"):
        swap_dropout(model, Uout(0.1), names=["head"])


class Shared(nn.Module):
    """One dropout module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.again = self.drop
        self.bn = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 2)."""
        out: Tensor = self.fc(self.bn(self.again(self.drop(x))))
        return out


def test_a_shared_module_is_replaced_under_every_name() -> None:
    """No name still leads to the old dropout."""
    model = Shared()
    assert [each.name for each in swap_dropout(model, nn.Identity())] == ["drop", "again"]
    assert kinds(model, nn.Dropout) == []


class Functional(nn.Module):
    """Dropout as a call in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.fc = nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 2)."""
        out: Tensor = self.fc(self.bn(functional.dropout(x, 0.5, self.training)))
        return out


def test_what_cannot_be_done_is_refused_and_changes_nothing() -> None:
    """Functional dropout, no place, a wrong place, p out of range: an error, and the old model."""
    with pytest.raises(UsageError, match="no dropout module before"):
        move_dropout(Functional())
    with pytest.raises(UsageError, match="no dropout module before"):
        swap_dropout(Functional(), Uout(0.1))
    for model, arguments, message in (
        (nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)), {}, "no linear layer"),
        (ConvNet(), {"before": "conv1"}, "must be a linear layer, but is Conv2d"),
        (ConvNet(), {"before": "nowhere"}, "is no module"),
        (ConvNet(), {"p": 1.5}, "between 0 and 1"),
    ):
        old = repr(model)
        with pytest.raises(UsageError, match=message):
            move_dropout(model, **arguments)
        assert repr(model) == old


def test_before_names_the_place() -> None:
    """The layer that is asked for, whatever is registered last."""
    model = ConvNet()
    changes = move_dropout(model, before="fc", p=0.2)
    assert [each.name for each in changes] == ["drop", "fc"]
    assert isinstance(model.fc, DropoutLinear)
    assert not isinstance(model.head, DropoutLinear)
