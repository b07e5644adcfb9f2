"""Lockstep, layer by layer, joined batches, errors inside: the same figures, the same model."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.nets import ConvNet, Mlp, batches_of, warmed_up
from varshift_cli.errors import ForwardError, NothingToMeasureError
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement import Measurement, measure, memory, passes
from varshift_cli.records import Batch, Case, SilentProgress


def run(model: nn.Module, batches: tuple[Batch, ...], *, regroup: bool = False) -> Measurement:
    return measure(
        model,
        find_batch_norms(model),
        batches,
        seed=0,
        progress=SilentProgress(),
        regroup=regroup,
    )


def assert_same(one: Measurement, other: Measurement, rtol: float = 1e-6) -> None:
    for left, right in zip(one.layers, other.layers, strict=True):
        for regime in ("train", "clean", "eval"):
            a, b = getattr(left, regime).pooled(), getattr(right, regime).pooled()
            torch.testing.assert_close(a.var, b.var, rtol=rtol, atol=1e-9)
            torch.testing.assert_close(a.mean, b.mean, rtol=rtol, atol=1e-6)


@pytest.fixture
def mlp() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(80, 12)
    return warmed_up(Mlp(), x), x


def test_layer_by_layer_equals_lockstep(
    mlp: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow procedure gives lockstep's figures where both apply."""
    model, x = mlp
    lockstep = run(model, batches_of(x, 16))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise passes.Diverged("bn")

    monkeypatch.setattr(passes, "run_lockstep", refuse)
    slow = run(model, batches_of(x, 16))
    assert (lockstep.procedure.method, slow.procedure.method) == ("lockstep", "layer by layer")
    assert_same(lockstep, slow)


def test_joined_batches_give_the_same_figures(mlp: tuple[nn.Module, Tensor]) -> None:
    """Joining batches for lockstep changes nothing, masks included."""
    model, x = mlp
    assert_same(run(model, batches_of(x, 3)), run(model, batches_of(x, 3), regroup=True))


def test_windows_are_merged_by_total_variance(
    mlp: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more batches than may live at once, the first layer stays exact and windows are told."""
    model, x = mlp
    whole = run(model, batches_of(x, 8))
    monkeypatch.setattr(memory, "MAX_LIVE", 4)
    windowed = run(model, batches_of(x, 8))
    assert (whole.procedure.windows, windowed.procedure.windows) == (1, 3)
    first = [m.layers[0].clean.pooled().var for m in (whole, windowed)]
    torch.testing.assert_close(first[0], first[1], rtol=1e-6, atol=0)


class Branching(nn.Module):
    """Takes one of two ways by the sign of the batch, then meets again."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.last = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.left(x) if x.sum() > 0 else self.right(x)
        out: Tensor = self.last(x)
        return out


def test_control_flow_that_depends_on_the_data() -> None:
    """Each layer's statistics are those of the batches that visit it, and the report says how."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(40, 6) + 2, torch.randn(40, 6) - 2])
    measured = run(Branching().eval(), batches_of(x, 20))
    assert measured.procedure.method == "layer by layer"
    assert measured.procedure.diverged_at in {"left", "right"}
    by_name = {layer.key.name: layer for layer in measured.layers}
    for name, part in (("left", x[:40]), ("right", x[40:])):
        torch.testing.assert_close(
            by_name[name].clean.pooled().var, part.double().var(0), rtol=1e-6, atol=0
        )
    normal = [(part - part.mean(0)) / (part.var(0) + 1e-5).sqrt() for part in (x[:40], x[40:])]
    torch.testing.assert_close(
        by_name["last"].clean.pooled().var, torch.cat(normal).double().var(0), rtol=1e-5, atol=0
    )


def test_wiring_names_every_dropout_that_reaches_a_layer() -> None:
    """Module and functional dropout, straight and through weights, with file and line."""
    model = ConvNet().eval()
    wiring = run(model, batches_of(torch.randn(8, 3, 6, 6), 4)).wiring
    links = {
        visit.key.name: {key.name: case for key, case in visit.dropouts}
        for visit in wiring.batch_norms
    }
    assert links == {
        "bn1": {},
        "bn2": {"drop": Case.THROUGH_WEIGHTS},
        "bn3": {"dropout#1": Case.STRAIGHT},
    }
    kinds = {visit.key.name: (visit.kind, visit.p) for visit in wiring.noises}
    assert kinds == {"drop": ("feature_dropout", 0.4), "dropout#1": ("dropout", 0.4)}
    assert all("nets.py:" in str(visit.location) for visit in wiring.noises)
    upstream = {v.key.name: {key.name for key in v.upstream} for v in wiring.batch_norms}
    assert upstream == {"bn1": set(), "bn2": {"bn1"}, "bn3": {"bn1", "bn2"}}
    assert {key.name for key in wiring.reached()} == {"bn2", "bn3"}


class Raising(nn.Module):
    """Raises in its second layer on the batch that holds a 7."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.picky = Picky()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.picky(self.bn(x), x)
        return out


class Picky(nn.Module):
    """Refuses sevens."""

    def forward(self, out: Tensor, x: Tensor) -> Tensor:
        if (x == 7).any():
            raise RuntimeError("no sevens please")
        return out


def state(model: nn.Module) -> tuple[object, ...]:
    return (
        [module.training for module in model.modules()],
        [buffer.clone() for buffer in model.buffers()],
        [id(buffer) for buffer in model.buffers()],
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_num_threads(),
    )


def assert_state(before: tuple[object, ...], after: tuple[object, ...]) -> None:
    for one, other in zip(before, after, strict=True):
        if isinstance(one, list) and one and isinstance(one[0], Tensor):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        elif isinstance(one, Tensor):
            assert torch.equal(one, other)
        elif isinstance(one, np.ndarray):
            assert np.array_equal(one, other)
        else:
            assert one == other


def mixed_flags(model: nn.Module) -> nn.Module:
    for index, module in enumerate(model.modules()):
        module.training = index % 3 == 0
    return model


def test_a_scan_leaves_the_model_as_it_was() -> None:
    """Flags (mixed ones too), buffers, hooks, random states, grad mode: all as before."""
    model, x = mixed_flags(ConvNet()), torch.randn(20, 3, 6, 6)
    before = state(model)
    run(model, batches_of(x, 8))
    assert_state(before, state(model))


@pytest.mark.parametrize("bad", [0, 2])
def test_a_raising_forward_leaves_the_model_as_it_was(bad: int) -> None:
    """The error names layer, batch and line; nothing of the scan stays behind."""
    model = mixed_flags(Raising())
    x = torch.randn(16, 3)
    x[bad * 4] = 7
    before = state(model)
    with pytest.raises(ForwardError, match=rf"'picky' .*batch {bad}: no sevens please") as caught:
        run(model, batches_of(x, 4))
    assert "test_procedures.py:" in str(caught.value)
    assert_state(before, state(model))


def test_a_forward_that_catches_an_ops_error_goes_on() -> None:
    """An op's error is raised inside the model, where it may be expected."""

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = x @ torch.ones(5, 5)
            except RuntimeError:
                x = x + 1
            out: Tensor = self.bn(x)
            return out

    x = torch.randn(12, 3)
    measured = run(Careful().eval(), batches_of(x, 4))
    torch.testing.assert_close(
        measured.layers[0].clean.pooled().mean, (x + 1).double().mean(0), rtol=1e-5, atol=1e-6
    )


def test_interrupting_lockstep_unwinds_every_forward() -> None:
    """Ctrl-C in the middle ends all paused forwards, through the model's own ``finally``."""
    open_forwards = 0

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.last = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal open_forwards
            open_forwards += 1
            try:
                out: Tensor = self.last(self.bn(x))
                return out
            finally:
                open_forwards -= 1

    class Interrupting(SilentProgress):
        def start(self, stage: str, total: int) -> None:
            self.stage = stage

        def advance(self, steps: int = 1) -> None:
            if self.stage.startswith("clean"):
                raise KeyboardInterrupt

    model, x = Counting(), torch.randn(40, 3)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        measure(
            model,
            find_batch_norms(model),
            batches_of(x, 4),
            seed=0,
            progress=Interrupting(),
        )
    assert open_forwards == 0
    assert_state(before, state(model))


def test_models_without_anything_to_measure() -> None:
    """No BN, BN without running statistics, BN that no batch reaches: each says so."""
    x = batches_of(torch.randn(8, 3), 4)
    with pytest.raises(NothingToMeasureError, match="no BatchNorm layer"):
        run(nn.Linear(3, 3), x)
    with pytest.raises(NothingToMeasureError, match="track_running_stats=False"):
        run(nn.BatchNorm1d(3, track_running_stats=False), x)

    class Unreached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    with pytest.raises(NothingToMeasureError, match="no batch reached 'bn'"):
        run(Unreached(), x)


class Switching(nn.Module):
    """Puts itself, or parts of itself, in train mode at every forward."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.body = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            self.get_submodule(part).train()
        out: Tensor = self.body(self.drop(x))
        return out


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (("",), "the model"),
        (("body", "drop"), "'body', 'drop'"),
    ],
)
def test_a_forward_that_switches_to_train(parts: tuple[str, ...], what: str) -> None:
    """Where eval() has no effect it is said who put what in train, and the model is given back."""
    model = Switching(*parts).eval()

    with pytest.raises(NothingToMeasureError) as caught:
        run(model, batches_of(torch.randn(8, 3), 4))

    assert caught.value.message == (
        f"the model's own forward puts {what} in train mode: even in eval() the buffers of the 2 "
        "BatchNorm layers (body.0, body.1) are not used"
    )
    assert not any(module.training for module in model.modules())


def test_functional_batch_norm_always_in_training() -> None:
    """So it is said of a functional call that asks for the batch's statistics."""

    class Functional(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, training=True)

    with pytest.raises(NothingToMeasureError, match="but the statistics of each batch"):
        run(nn.Sequential(Functional(3)), batches_of(torch.randn(8, 3), 4))


class Standardised(nn.Module):
    """Looks at its weights through views before it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))
        self.register_buffer("offset", torch.randn(2, 6))
        self.bn = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(2, 3, 3).transpose(0, 1).reshape(6, 3)
        first, second = weight.chunk(2)
        out: Tensor = self.bn(x @ torch.cat([first, second]).t() + self.offset[0])
        return out


def test_views_of_weights_in_lockstep() -> None:
    """A forward may view, cut and transpose its parameters and buffers, at any batch size."""
    torch.manual_seed(0)
    model, x = Standardised().eval(), torch.randn(40, 3)
    assert_same(run(model, batches_of(x, 40)), run(model, batches_of(x, 8)))
