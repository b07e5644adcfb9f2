"""The extra train passes against hooks that share nothing with them."""

import pytest
import torch
from torch import nn

from tests.nets import batches_of, captured_inputs, warmed_up
from varshift_cli.instrument import BatchNormKey, find_batch_norms
from varshift_cli.measurement.samples import identify
from varshift_cli.measurement.trials import TrainTrials


@pytest.fixture
def net():
    torch.manual_seed(0)
    x = torch.randn(120, 6)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)
    )
    return warmed_up(model, x), x


def trials(model, x, labels=None):
    batches = batches_of(x, 40, labels)
    return TrainTrials(model, find_batch_norms(model), batches, identify(batches), 0)


def test_by_label(net):
    """With labels the groups are the classes: each one's variance is that of its own samples."""
    model, x = net
    labels = torch.arange(120) % 3

    moments = trials(model, x, labels).by_label()[BatchNormKey("1", 1)]

    inputs = captured_inputs(model, x, ["1"])["1"]
    for label in range(3):
        expected = inputs[labels == label].var(0)
        found = moments.m2[label] / (moments.count[label] - 1)
        assert torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("labels", [None, torch.rand(120), torch.zeros(120, dtype=torch.long)])
def test_without_classes(net, labels):
    """No labels, real numbers, or one class only: nothing to group by."""
    assert trials(*net, labels).by_label() is None


def test_with_eps(net):
    """Another eps leaves the first BN's input alone and scales what the next one gets."""
    model, x = net
    found = trials(model, x).with_eps(0.5)

    first = captured_inputs(model, x, ["1"])["1"]
    normal = (first - first.mean(0)) / (first.var(0) + 0.5).sqrt()
    with torch.no_grad():
        hidden = torch.relu(normal * model[1].weight + model[1].bias).double()
        second = hidden @ model[3].weight.double().T + model[3].bias
    assert torch.allclose(found[BatchNormKey("1", 1)].pooled().var, first.var(0), rtol=1e-5)
    assert torch.allclose(found[BatchNormKey("4", 1)].pooled().var, second.var(0), rtol=1e-4)
    assert model[1].eps == 1e-5
