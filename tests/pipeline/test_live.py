"""scan and recalibrate on a model in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.nets import ConvNet, Mlp, batches_of, captured_inputs, warmed_up
from varshift_cli import (
    DataError,
    FixDeclinedError,
    NothingToMeasureError,
    ShiftMonitor,
    UsageError,
    assert_variance_shift,
    correct,
    recalibrate,
    scan,
)


@pytest.fixture
def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(120, 3, 6, 6)
    return warmed_up(ConvNet(), x), x


def test_recalibrate_fills_the_same_buffers(net: tuple[nn.Module, Tensor]) -> None:
    """Buffers keep their identity and hold what float64 by hand finds in eval(), ddof 1."""
    model, x = net
    before = {name: buffer.data_ptr() for name, buffer in model.named_buffers()}
    counters = {n: int(b) for n, b in model.named_buffers() if n.endswith("tracked")}
    record = recalibrate(model, list(x.split(16)))
    assert {name: buffer.data_ptr() for name, buffer in model.named_buffers()} == before
    assert counters == {n: int(b) for n, b in model.named_buffers() if n.endswith("tracked")}
    for name, inputs in captured_inputs(model, x, ["bn1", "bn2", "bn3"]).items():
        bn = model.get_submodule(name)
        torch.testing.assert_close(bn.running_mean.double(), inputs.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(bn.running_var.double(), inputs.var(0), rtol=1e-5, atol=1e-8)
    assert record.residual < 1e-5
    assert [layer.name for layer in record.layers] == ["bn1", "bn2", "bn3"]


@pytest.mark.parametrize("form", ["loader", "tuples", "tensor", "batches", "dicts"])
def test_any_form_of_batches_gives_the_same_report(
    net: tuple[nn.Module, Tensor], form: str
) -> None:
    """A DataLoader, tuples, one tensor, dicts: the same figures."""
    model, x = net
    labels = torch.zeros(len(x), dtype=torch.int64)
    forms = {
        "loader": DataLoader(TensorDataset(x, labels), batch_size=16),
        "tuples": [(part, labels[: len(part)]) for part in x.split(16)],
        "tensor": x,
        "batches": batches_of(x, 16),
        "dicts": [{"x": part} for part in x.split(16)],
    }
    expected = scan(model, list(x.split(16)))
    found = scan(model, forms[form])
    for one, other in zip(expected.layers, found.layers, strict=True):
        assert one.shift == pytest.approx(other.shift, rel=1e-5)
        assert one.factors.dropout == pytest.approx(other.factors.dropout, rel=1e-5)


def test_recalibrate_twice_changes_nothing(net: tuple[nn.Module, Tensor]) -> None:
    """The second recalibration finds what the first wrote."""
    model, x = net
    recalibrate(model, x)
    first = {name: buffer.clone() for name, buffer in model.named_buffers()}
    recalibrate(model, x)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, first[name], rtol=1e-6, atol=1e-7)


def test_layers_that_cannot_be_written_are_left_alone_and_named() -> None:
    """Shared, unreached, frozen and untracked BN: unchanged, with the reason."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
            self.unreached, self.frozen = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
            self.untracked = nn.BatchNorm1d(4, track_running_stats=False)
            self.last = nn.BatchNorm1d(4)

        def train(self, mode: bool = True) -> Net:
            super().train(mode)
            self.frozen.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            x = self.shared(self.shared(self.first(x)))
            out: Tensor = self.last(self.untracked(self.frozen(x)))
            return out

    torch.manual_seed(0)
    model = Net()
    x = torch.randn(64, 4) * 3 + 1
    kept = {
        name: (bn.running_mean.clone(), bn.running_var.clone())
        for name, bn in model.named_children()
        if bn.running_mean is not None
    }
    record = recalibrate(model, list(x.split(16)))
    reasons = {skipped.name: skipped.reason for skipped in record.skipped}
    assert set(reasons) == {"shared", "unreached", "frozen", "untracked"}
    assert "called 2 times" in reasons["shared"]
    assert "no batch reached" in reasons["unreached"]
    assert "frozen" in reasons["frozen"]
    for name in ("shared", "unreached", "frozen"):
        bn = model.get_submodule(name)
        assert torch.equal(bn.running_mean, kept[name][0])
        assert torch.equal(bn.running_var, kept[name][1])
    assert record.residual < 1e-5
    inputs = captured_inputs(model.eval(), x, ["first", "last"])
    for name, value in inputs.items():
        torch.testing.assert_close(
            model.get_submodule(name).running_var.double(), value.var(0), rtol=1e-5, atol=1e-8
        )
    included = recalibrate(model.train(), list(x.split(16)), include_frozen=True)
    assert "frozen" in {layer.name for layer in included.layers}


def test_dropout_that_ignores_eval_is_refused_and_found() -> None:
    """A functional dropout without its flag: scan says so, recalibrate declines, buffers stay."""

    class Always(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(functional.dropout(x))
            return out

    model, x = Always().eval(), torch.randn(64, 5)
    assert "VS120" in {finding.code for finding in scan(model, x).findings}
    before = model.bn.running_var.clone()
    with pytest.raises(FixDeclinedError, match="stays on in eval"):
        recalibrate(model, x)
    assert torch.equal(model.bn.running_var, before)


def test_too_little_or_broken_data() -> None:
    """No sample, one sample, NaN: refused, the buffers untouched."""
    model = Mlp()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(DataError, match="empty"):
        recalibrate(model, [])
    with pytest.raises(DataError, match="one sample"):
        recalibrate(model, [torch.randn(1, 12)])
    x = torch.randn(20, 12)
    x[13, 2] = float("nan")
    with pytest.raises(DataError, match="sample 13 "):
        recalibrate(model, list(x.split(8)))
    with pytest.raises(NothingToMeasureError):
        recalibrate(nn.Linear(12, 2), x[:8])
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_an_error_in_mid_loader_changes_nothing(net: tuple[nn.Module, Tensor]) -> None:
    """A loader that raises half-way: the error comes through, the model is as it was."""
    model, x = net
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def broken() -> object:
        yield x[:16]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        recalibrate(model, broken())
    assert model.training
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_never_updated_buffers_are_an_error_and_broken_ones_too() -> None:
    """Mean 0, variance 1 everywhere is VS201; NaN is VS202 and leaves the other layers measured."""
    torch.manual_seed(0)
    model, x = Mlp(), torch.randn(64, 12)
    fresh = scan(model, x)
    assert {finding.code for finding in fresh.findings} >= {"VS201"}
    assert fresh.buffers.describe == "unknown"
    assert fresh.unknown["buffers.slope"] == "the running statistics were never updated"
    warmed_up(model, x)
    model.body[5].running_var[3] = float("nan")
    report = scan(model, x)
    broken = next(finding for finding in report.findings if finding.code == "VS202")
    assert broken.layers == ("body.5",)
    shifts = {layer.name: layer.shift for layer in report.layers}
    assert shifts["body.1"] is not None
    assert shifts["body.5"] is None
    assert "layers.1.shift" in report.unknown


@pytest.mark.parametrize("function", [scan, recalibrate, correct])
@pytest.mark.parametrize(
    ("batches", "found", "advice"),
    [
        (None, "batches is None;", "a tuple (input, label)"),
        (3, "batches is 3;", "a tuple (input, label)"),
        ("gone.npz", "batches is 'gone.npz';", "varshift scan MODEL --data gone.npz"),
        ({"x": torch.zeros(4, 3)}, "batches is a dict;", "[batch]"),
        (TensorDataset(torch.zeros(4, 3)), "batches is a TensorDataset;", "DataLoader(dataset"),
        (Mlp().forward, "batches is a method;", "Call it"),
        (DataLoader, "batches is the class DataLoader;", "Call it"),
    ],
)
def test_what_are_no_batches(function, batches, found, advice) -> None:
    """Data of a wrong type are refused with what they are and what to pass, by every function."""
    with pytest.raises(UsageError) as caught:
        function(Mlp(), batches)

    assert caught.value.message.startswith(f"{found} expected a DataLoader")
    assert advice in (caught.value.hint or "")


@pytest.mark.parametrize("function", [scan, recalibrate, correct])
@pytest.mark.parametrize(
    ("model", "found", "advice"),
    [
        ("model.pt", "'model.pt'", "varshift scan model.pt"),
        (Mlp().state_dict(), "an OrderedDict", "load_state_dict"),
        (Mlp, "the class Mlp", "model = Mlp(...)"),
        (None, "None", "the network itself"),
    ],
)
def test_what_is_no_model(function, model, found, advice) -> None:
    """So is a model that is none."""
    with pytest.raises(UsageError) as caught:
        function(model, torch.zeros(4, 12))

    assert caught.value.message == f"model is {found}, not a torch.nn.Module"
    assert advice in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("option", "value"), [("forward", "f"), ("noise", "Mlp"), ("noise", Mlp), ("noise", ["Mlp"])]
)
def test_options_of_a_wrong_type(option, value) -> None:
    """A forward that cannot be called, or noise that names no types, is refused by its name."""
    with pytest.raises(UsageError, match=f"^{option} is "):
        scan(Mlp(), torch.zeros(4, 12), **{option: value})


def test_no_more_samples_than_asked_for() -> None:
    """1,024 of a longer stream by default, as on the command line, and that is said; None: all."""
    model = warmed_up(Mlp(), torch.randn(400, 12))
    drawn: list[int] = []

    def stream(batches: int) -> Iterator[Tensor]:
        for _ in range(batches):
            drawn.append(100)
            yield torch.randn(100, 12)

    report = scan(model, stream(50), attribute=False)
    assert report.calibration.samples == 1024
    assert sum(drawn) == 1100
    assert report.notes == ("the first 1,024 samples were taken; there are more (samples=)",)
    cut = scan(model, torch.randn(300, 12).split(100), samples=200, attribute=False)
    assert cut.notes == ("the first 200 samples were taken; there are more (samples=)",)
    assert scan(model, stream(20), samples=None, attribute=False).calibration.samples == 2000
    few = scan(model, stream(20), samples=130, attribute=False)
    assert few.calibration.samples == 130
    assert scan(model, stream(3), attribute=False).notes == ()
    assert scan(model, torch.randn(200, 12).split(100), samples=200, attribute=False).notes == ()
    assert assert_variance_shift(model, stream(20), None, samples=None).calibration.samples == 2000
    with pytest.raises(UsageError, match="samples must be at least 1, but is 0"):
        scan(model, stream(1), samples=0)


def test_a_monitor_scans_all_that_it_keeps() -> None:
    """Its own limit holds alone."""
    model = warmed_up(Mlp(), torch.randn(400, 12))
    monitor = ShiftMonitor(model, torch.randn(1500, 12).split(100), every=1, samples=1300)
    monitor.step()
    assert monitor.report is not None
    assert monitor.report.calibration.samples == 1300
