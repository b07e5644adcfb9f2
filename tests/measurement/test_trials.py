"""The extra train passes against hooks that share nothing with them."""

import copy

import pytest
import torch
from torch import nn

from tests.nets import batches_of, captured_inputs, warmed_up
from varshift_cli.instrument import BatchNormKey, find_batch_norms
from varshift_cli.measurement.ordering import Order
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


def trials(model, x, labels=None, order=None, size=40):
    batches = batches_of(x, size, labels)
    return TrainTrials(model, find_batch_norms(model), batches, identify(batches), 0, order=order)


def in_train_mode(model, batches, name):
    """Mean and unbiased variance of what enters a BN, batch by batch, in PyTorch's own train()."""
    found = []
    twin = copy.deepcopy(model).train()
    twin.get_submodule(name).register_forward_pre_hook(
        lambda _module, given: found.append((given[0].mean(0), given[0].var(0)))
    )
    with torch.no_grad():
        for batch in batches:
            twin(batch)
    return [torch.stack(part).double() for part in zip(*found, strict=True)]


@pytest.mark.parametrize("name", ["1", "4"])
def test_unmixed_by_class(net, name):
    """Each class has batches of its own, normalised by the batch: as train() would gather them."""
    model, x = net
    labels = torch.arange(120) % 3

    found = trials(model, x, labels).unmixed()

    key = BatchNormKey(name, 1)
    parts = [x[labels == kind].split(20) for kind in range(3)]
    mean, var = in_train_mode(model, [part for each in parts for part in each], name)
    assert found.by_class
    assert torch.allclose(found.mean[key], mean.view(3, 2, -1).mean(1), rtol=1e-4, atol=1e-6)
    assert torch.allclose(found.var[key], var.view(3, 2, -1).mean(1), rtol=1e-4)


def test_classes_in_the_order_in_which_they_come(net):
    """Sorted batches show which class comes last; mixed ones leave the order of their numbers."""
    model, x = net
    labels = torch.tensor([2, 0, 1]).repeat_interleave(40)
    key = BatchNormKey("1", 1)

    met = trials(model, x, labels, Order(by_class=True, ratio=None)).unmixed().mean[key]
    numbered = trials(model, x, labels).unmixed().mean[key]

    assert torch.equal(met, numbered[[2, 0, 1]])
    assert not torch.equal(met, numbered)


def test_unmixed_as_the_batches_come(net):
    """Without labels, batches in an order are taken as they are; others tell nothing."""
    model, x = net

    found = trials(model, x, order=Order(by_class=False, ratio=5.0)).unmixed()

    mean, var = in_train_mode(model, x.split(40), "4")
    assert not found.by_class
    assert torch.allclose(found.mean[BatchNormKey("4", 1)], mean, rtol=1e-4, atol=1e-6)
    assert torch.allclose(found.var[BatchNormKey("4", 1)], var, rtol=1e-4)
    assert trials(model, x).unmixed() is None


@pytest.mark.parametrize("labels", [torch.rand(120), torch.zeros(120, dtype=torch.long)])
def test_without_classes(net, labels):
    """Real numbers, or one class only: nothing tells kinds apart."""
    assert trials(*net, labels).unmixed() is None


def test_rare_classes_are_left_out(net):
    """A class of three samples tells nothing of a batch of its own."""
    labels = (torch.arange(120) >= 60).long()
    labels[:3] = 7

    found = trials(*net, labels).unmixed()

    assert found.mean[BatchNormKey("1", 1)].shape == (2, 8)


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
