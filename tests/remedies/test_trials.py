"""Remedies tried in memory: ranked, right, and without a trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.measurement.test_prediction import DropPath
from tests.nets import ConvNet, Mlp, Straight, warmed_up
from varshift_cli import Remedy, Report, recalibrate, scan, swap_dropout
from varshift_cli.nn import Uout
from varshift_cli.remedies import trials


def net(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    if kind == "conv":
        x = torch.randn(256, 3, 6, 6) + 0.3
        return warmed_up(ConvNet(0.5), x, steps=200), x
    x = torch.randn(512, 12)
    return warmed_up(Mlp(depth=4), x, steps=200), x


def remedies(report: Report) -> dict[str, Remedy]:
    code = next(code for code in report.remedies if code in {"VS101", "VS102", "VS103"})
    return {each.title.partition(":")[0].partition(" ")[0]: each for each in report.remedies[code]}


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_ranked_recalibration_first_of_those_without_training(kind: str) -> None:
    """No training first, recalibration at their head at shift 1; then by the worst layer."""
    model, x = net(kind)
    report = scan(model, list(x.split(64)))
    listed = next(
        iter(report.remedies[code] for code in ("VS101", "VS102") if code in report.remedies)
    )
    assert listed[0].title.startswith("Recalibrate")
    assert listed[0].worst_shift == pytest.approx(1.0, abs=1e-4)
    trained = [each.needs_training for each in listed]
    assert trained == sorted(trained)
    worst = [round(each.worst_shift or 0, 2) for each in listed if each.needs_training]
    assert worst == sorted(worst)
    for each in listed:
        assert each.worst_shift is not None
        assert each.mean_shift is not None
        assert 1.0 <= each.mean_shift <= each.worst_shift
        assert each.basis is not None
        assert each.basis.startswith("today's weights, ")


def test_how_names_the_command_the_line_and_the_call() -> None:
    """In memory: calls in Python; file and line of the dropout; no call for functional dropout."""
    model, x = net("mlp")
    found = remedies(scan(model, x))
    assert found["Recalibrate"].how == "varshift_cli.recalibrate(model, batches)"
    assert found["Correct"].how == "varshift_cli.correct(model, batches)"
    assert "tests/nets.py:" in found["Move"].how
    assert found["Move"].how.endswith("varshift_cli.move_dropout(model)")
    assert "swap_dropout(model, varshift_cli.Uout(0.1))" in found["Uout(0.1)"].how
    model, x = net("conv")
    found = remedies(scan(model, x))
    assert "varshift_cli." not in found["Move"].how


def test_uout_as_tried_is_uout_as_trained() -> None:
    """What swap_dropout and a fresh gathering of statistics leave is what was predicted."""
    model, x = net("mlp")
    tried = remedies(scan(model, x))["Drop"]
    p = float(tried.title.partition("p = ")[2].partition(" ")[0])
    changed = copy.deepcopy(model)
    swap_dropout(changed, nn.Dropout(p))
    with torch.no_grad():
        report = scan(gathered(changed, x), x)
    worst = max(layer.shift or 0 for layer in report.layers)
    assert tried.worst_shift is not None
    assert worst == pytest.approx(tried.worst_shift, rel=0.1)


def gathered(model: nn.Module, x: Tensor) -> nn.Module:
    """Statistics as training gathers them, averaged over many whole-data batches."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    for _ in range(60):
        model(x)
    return model.eval()


def test_gaussian_of_equal_strength_helps_no_more_than_dropout() -> None:
    """Equal variance, equal shift: within 10 % of the shift as it is."""
    model, x = net("mlp")
    report = scan(gathered(model, x), x)
    worst = max(layer.shift or 0 for layer in report.layers)
    gaussian = remedies(report)["Gaussian"].worst_shift
    assert gaussian == pytest.approx(worst, rel=0.1)


def test_straight_behind_dropout_the_papers_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One BN straight behind dropout, c = 0: Uout(1) leaves (3 + 1)/3, p = 1/8 leaves 8/7."""
    monkeypatch.setattr(trials, "BETA", 1.0)
    torch.manual_seed(0)
    x = torch.randn(2000, 200)
    model = gathered(Straight(200, 0.5), x)
    found = remedies(scan(model, x))
    assert found["Uout(0.1)"].worst_shift == pytest.approx(4 / 3, rel=0.02)
    assert found["Move"].worst_shift == pytest.approx(1.0, abs=1e-6)
    # p = 0.25 would leave 4/3, above mild: half of that again leaves 8/7.
    assert found["Drop"].title == "Drop less: p = 0.12 in place of 0.5"
    assert found["Drop"].worst_shift == pytest.approx(8 / 7, rel=0.03)


def test_channels_are_offered_elements() -> None:
    """Dropout2d in front of a convolution: by element is tried, and leaves less."""

    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.conv = nn.Dropout2d(0.5), nn.Conv2d(4, 8, 3, padding=1)
            self.bn = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(self.conv(self.drop(x.relu())))
            return out

    torch.manual_seed(0)
    x = torch.randn(256, 4, 1, 1) + 0.3 * torch.randn(256, 4, 8, 8) + 0.5
    model = Channels()
    model.conv.weight.data = model.conv.weight.data.abs()
    report = scan(warmed_up(model, x), list(x.split(64)))
    elements = next(each for each in report.remedies["VS102"] if "elements" in each.title)
    as_is = report.layers[0].shift
    assert as_is is not None
    assert elements.worst_shift is not None
    assert elements.worst_shift < 0.8 * as_is


def test_stochastic_depth_is_not_offered_what_is_no_remedy_for_it() -> None:
    """No dropout op: recalibrate, correct, move and remove alone."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path, self.fc, self.bn = DropPath(0.5), nn.Linear(12, 12), nn.BatchNorm1d(12)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(x + self.path(self.fc(x)))
            return out

    torch.manual_seed(0)
    x = torch.randn(512, 12)
    report = scan(warmed_up(Residual(), x, steps=200), x)
    titles = " ".join(each.title for each in next(iter(report.remedies.values())))
    assert "Uout" not in titles
    assert "Drop less" not in titles


def test_nothing_is_tried_on_a_sound_or_repaired_net() -> None:
    """After recalibration no remedy carries a shift; a net without dropout costs no pass."""
    model, x = net("mlp")
    recalibrate(model, x)
    report = scan(model, x)
    assert all(each.worst_shift is None for rs in report.remedies.values() for each in rs)
    report = scan(warmed_up(Mlp(p=0.0), x), x)
    assert all(each.worst_shift is None for rs in report.remedies.values() for each in rs)


def test_trials_leave_no_trace() -> None:
    """Flags, buffers, hooks and random state are as before."""
    model, x = net("conv")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert remedies(scan(model, x))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(module._forward_hooks for module in model.modules())


def test_uout_swapped_in_is_predicted_too() -> None:
    """A net that has Uout already gets no offer of dropout ops, and still a ranking."""
    torch.manual_seed(0)
    x = torch.randn(512, 12)
    model = Mlp()
    swap_dropout(model, Uout(1.0))
    report = scan(warmed_up(model, x, steps=200), x)
    assert all(layer.shift is not None for layer in report.layers)


def test_the_dropout_that_does_most_is_named_first() -> None:
    """Two dropouts in two lines: the edit starts with the one of the largest share."""

    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weak, self.strong = nn.Dropout(0.05), nn.Dropout(0.6)
            self.bn = nn.BatchNorm1d(12)

        def forward(self, x: Tensor) -> Tensor:
            x = self.weak(x)
            x = self.strong(x)
            out: Tensor = self.bn(x)
            return out

    torch.manual_seed(0)
    x = torch.randn(512, 12)
    report = scan(warmed_up(Uneven(), x, steps=200), x)
    places = {each.name: each.location for each in report.dropouts}
    move = next(each for each in report.remedies["VS101"] if each.title.startswith("Move"))
    assert move.how.startswith(f"{places['strong']}, {places['weak']}: ")
