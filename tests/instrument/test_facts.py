import torch
from torch import nn

from varshift_cli.instrument.facts import model_facts


def net():
    return nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16, momentum=0.3), nn.Linear(16, 8))


def test_momentum_and_affine():
    """Momentum is read from each BN; scale 1 and offset 0 are noticed, and one change clears it."""
    model = net()
    facts = model_facts(model)
    assert (facts.momentum, facts.untrained_affine) == ({"1": 0.3}, ("1",))

    with torch.no_grad():
        model[1].bias[0] = 0.1
    assert model_facts(model).untrained_affine == ()
    assert model_facts(nn.BatchNorm1d(3, momentum=None)).momentum == {"": None}


def test_weights():
    """The share of zeros and the number of different values of each weight."""
    model = net()
    with torch.no_grad():
        model[0].weight[:8] = 0.0
        model[2].weight.copy_(torch.sign(model[2].weight))

    first, second = model_facts(model).weights

    assert (first.name, first.zeros, first.distinct) == ("0", 0.5, 129)
    assert (second.name, second.zeros, second.distinct) == ("2", 0.0, 2)


def test_averaged_model():
    """torch's AveragedModel counts what it averaged; nothing is changed by looking."""
    average = torch.optim.swa_utils.AveragedModel(net())
    average.update_parameters(net())
    before = {name: value.clone() for name, value in average.state_dict().items()}

    assert model_facts(average).averaged_count == 1
    assert model_facts(net()).averaged_count is None
    assert all(torch.equal(before[name], value) for name, value in average.state_dict().items())
