"""The factor *batch*: what the batch size of training did to the running variance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.nets import ConvNet, Mlp, batches_of, warmed_up
from varshift_cli import scan
from varshift_cli.errors import UsageError
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement import measure
from varshift_cli.records import SilentProgress


def images(count: int = 240) -> Tensor:
    """Images whose means differ from one to the next, as real ones do."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, 6, 6, generator=generator) + torch.randn(
        count, 3, 1, 1, generator=generator
    )


def measured(net: nn.Module, x: Tensor, size: int, cut: int = 40):
    """Layer moments with the pass at the batch size of training."""
    return measure(
        net,
        find_batch_norms(net),
        batches_of(x, cut),
        seed=0,
        progress=SilentProgress(),
        train_batch_size=size,
    )


@pytest.mark.parametrize("size", [4, 16])
def test_it_is_what_torch_itself_averages(size: int) -> None:
    """Without dropout, T_batch is the mean of what train() leaves in running_var at momentum 1."""
    torch.manual_seed(0)
    net, x = ConvNet(p=0.0), images()
    found = {layer.key.name: layer.batch for layer in measured(net, x, size).layers}
    keys = measured(net, x, size).samples.keys
    order = torch.argsort(torch.cat(list(keys)))
    layers = {name: module for name, module in net.named_modules() if name in found}
    for layer in layers.values():
        layer.momentum = 1.0
    sums = {name: torch.zeros(layer.num_features).double() for name, layer in layers.items()}
    net.train()
    runs = order.split(size)
    with torch.no_grad():
        for run in runs:
            net(x[run])
            for name, layer in layers.items():
                sums[name] += layer.running_var.double()
    for name, total in sums.items():
        torch.testing.assert_close(found[name].pooled(), total / len(runs), rtol=1e-5, atol=1e-9)


def test_it_takes_over_what_stale_held() -> None:
    """Buffers gathered at batch 4 read stale without the option, and batch with it."""
    torch.manual_seed(0)
    x = images(960)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.01))
    warmed_up(net, x, steps=900, size=4)
    loader = list(x.split(32))
    whole = scan(net, loader).layers[0]
    split = scan(net, loader, train_batch_size=4).layers[0]
    assert whole.factors.batch is None
    assert whole.factors.stale > 1.05
    assert split.factors.batch > 1.05
    assert abs(math.log(split.factors.stale)) < 0.02
    assert (
        split.factor_intervals.batch.low < split.factors.batch < split.factor_intervals.batch.high
    )
    product = math.prod(
        (split.factors.stale, split.factors.batch, split.factors.dropout, split.factors.inherited)
    )
    assert product == pytest.approx(split.signed, abs=1e-9)
    assert split.factors.stale * split.factors.batch == pytest.approx(whole.factors.stale, abs=1e-9)


def test_the_closed_form_for_images_that_differ() -> None:
    """T_batch = S2 - s_b2/m for m images a batch, s_b2 the variance of image means (12 % here)."""
    generator = torch.Generator().manual_seed(5)
    count, positions, m = 4000, 64, 4
    x = torch.randn(count, 1, 8, 8, generator=generator) + torch.randn(
        count, 1, 1, 1, generator=generator
    )
    layer = measured(nn.Sequential(nn.BatchNorm2d(1)), x, m, cut=500).layers[0]
    between = x.mean(dim=(1, 2, 3)).double().var()
    within = x.double().var(dim=(1, 2, 3)).mean() * (positions - 1) / positions
    n = m * positions
    # E[unbiased batch var] = n/(n-1) (S2 - Var(batch mean)), each with its own Bessel factor.
    expected = n / (n - 1) * (within + between - between / m)
    # 1,000 batches know their mean variance to 1 %.
    assert float(layer.batch.pooled()) == pytest.approx(float(expected), rel=0.03)


def test_it_does_not_depend_on_how_samples_come() -> None:
    """Permuted samples and other batches give the same batches of training."""
    torch.manual_seed(0)
    net, x = Mlp().eval(), torch.randn(200, 12)
    order = torch.randperm(200)
    first = scan(net, list(x.split(50)), train_batch_size=8)
    second = scan(net, list(x[order].split(7)), train_batch_size=8)
    for one, other in zip(first.layers, second.layers, strict=True):
        assert one.factors.batch == pytest.approx(other.factors.batch, rel=1e-5)


@pytest.mark.parametrize("size", [1, 201])
def test_a_size_that_makes_no_batch_is_refused(size: int) -> None:
    """The message names the sizes that would do."""
    with pytest.raises(UsageError, match="expected 2 to 200"):
        scan(Mlp(), list(torch.randn(200, 12).split(50)), train_batch_size=size)


def test_batches_that_cannot_be_cut_are_refused() -> None:
    """Batches whose tensors differ in shape are no rows that could be dealt anew."""

    class Anything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(x)

    with pytest.raises(UsageError, match="cannot be cut"):
        scan(Anything(), [torch.randn(8, 3, 4), torch.randn(8, 3, 5)], train_batch_size=4)
