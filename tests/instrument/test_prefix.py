"""What the train pass takes from the clean pass: the same bits, and only where it is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from tests.architectures.test_architectures import EVERY, cut
from tests.nets import ConvNet, Mlp, batches_of, warmed_up
from varshift_cli.instrument import borrowed, find_batch_norms, looks, prefix
from varshift_cli.instrument.prefix import (
    Carrier,
    Plainly,
    recorder_and_player,
    recorder_and_players,
)
from varshift_cli.measurement.passes import Plan, forget, plan_passes, run_population, wire
from varshift_cli.measurement.regimes import PopulationRegime
from varshift_cli.measurement.samples import identify
from varshift_cli.records import Batch, SilentProgress
from varshift_cli.remedies import Workload, gather_populations
from varshift_cli.statistics import GroupMoments

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def no_op_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets of tests are tiny."""
    monkeypatch.setattr(prefix, "_SMALL", 0)
    monkeypatch.setattr(prefix, "_EFFORT", 0)


class Watched:
    """A player that counts how often it did not run the op."""

    def __init__(self, player: Carrier) -> None:
        self._player = player
        self.taken = 0

    def carry_out(self, batch: int, op: Any, args: Sequence[Any], kwargs: Any) -> Any:
        runs = 0

        class Counted:
            """Equal to the op; counts its calls."""

            def __hash__(self) -> int:
                return hash(op)

            def __eq__(self, other: object) -> bool:
                return other is op

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                nonlocal runs
                runs += 1
                return op(*args, **kwargs)

        result = self._player.carry_out(batch, Counted(), args, kwargs)
        self.taken += not runs
        return result

    def noise_met(self, batch: int) -> None:
        self._player.noise_met(batch)


def passes(
    make: Callable[[], nn.Module], batches: Sequence[Batch], *, shared: bool
) -> tuple[dict[Any, GroupMoments], int]:
    """Moments of the train pass after a clean pass, and how many results it took from that."""
    model = make()
    with borrowed(model, find_batch_norms(model)) as instrumented:
        samples = identify(batches)
        plan = plan_passes(instrumented, batches, wire(instrumented, batches)[0])
        recorder, player = recorder_and_player(1 << 30) if shared else (Plainly(), Plainly())
        watched = Watched(player)
        for noise_on, carrier in ((False, recorder), (True, watched)):
            torch.manual_seed(0)
            regime = PopulationRegime(samples, noise_on=noise_on, seed=3)
            run_population(instrumented, batches, regime, forget, plan=plan, carrier=carrier)
    return regime.gathered.moments, watched.taken


def assert_same_bits(make: Callable[[], nn.Module], batches: Sequence[Batch]) -> int:
    """Taking results from the clean pass changes no bit; returns how many were taken."""
    alone, none = passes(make, batches, shared=False)
    found, taken = passes(make, batches, shared=True)
    assert none == 0
    assert list(found) == list(alone)
    for key, moments in alone.items():
        assert torch.equal(moments.mean, found[key].mean), key
        assert torch.equal(moments.m2, found[key].m2), key
    return taken


def of(parts: Sequence[Any]) -> tuple[Batch, ...]:
    made = []
    for part in parts:
        kwargs = part if isinstance(part, dict) else {}
        args = () if kwargs else (part,)
        size = len(next(iter(kwargs.values()))) if kwargs else len(part)
        made.append(Batch(args, kwargs, None, size))
    return tuple(made)


NOTHING_BEFORE = {"transformer with BN"}
"""Its first dropout is that of the attention."""


@pytest.mark.parametrize("name", EVERY)
def test_architectures(name: str) -> None:
    """Thirty nets, in lockstep and as one batch: the train pass to the last bit."""
    build, draw = EVERY[name]
    torch.manual_seed(0)
    model = build().eval()
    batches = of(cut(draw(24), 8))
    for part in (batches, batches[:1]):
        taken = assert_same_bits(lambda: model, part)
        assert taken >= (0 if name in NOTHING_BEFORE else len(part))


def scripted() -> nn.Module:
    torch.manual_seed(0)
    return torch.jit.script(ConvNet().eval())  # type: ignore[no-any-return,no-untyped-call]


def exported() -> nn.Module:
    torch.manual_seed(0)
    dynamic = ({0: torch.export.Dim("n", min=2, max=64)},)
    program = torch.export.export(
        ConvNet().eval(), (torch.randn(8, 3, 6, 6),), dynamic_shapes=dynamic
    )
    return program.module()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [scripted, exported])
def test_containers(make: Callable[[], nn.Module]) -> None:
    """TorchScript and an exported program."""
    assert assert_same_bits(make, batches_of(torch.randn(32, 3, 6, 6), 8)) >= 4


class Odd(nn.Module):
    """A stem, something odd, and a dropout between two BN."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.bn1 = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.middle, self.drop = nn.Linear(8, 8), nn.Dropout(0.4)
        self.last, self.bn2 = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.calls = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.odd(self.stem(x)))
        out: Tensor = self.bn2(self.last(self.drop(self.middle(x))))
        return out

    def odd(self, x: Tensor) -> Tensor:
        return x


class InPlace(Odd):
    """Works on what the stem returned, in place: that is another tensor then."""

    def odd(self, x: Tensor) -> Tensor:
        return x.relu_().add_(1.0)


class ThroughAView(Odd):
    """The same through a view of it."""

    def odd(self, x: Tensor) -> Tensor:
        x.view(-1)[::3].zero_()
        return x


class ByNumpy(Odd):
    """The same where no op can be seen."""

    def odd(self, x: Tensor) -> Tensor:
        x.numpy()[:, 2] *= 3.0
        return x


class OnItsInput(Odd):
    """Changes its very input before the stem."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2.0))


class Counting(Odd):
    """Does something else at every call."""

    def odd(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class OnePixel(Odd):
    """One value of thousands is another at every call."""

    def odd(self, x: Tensor) -> Tensor:
        self.calls += 1
        x[0, 0] = self.calls
        return x


class Drawing(Odd):
    """Draws noise of its own, which is no dropout."""

    def odd(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Learning(Odd):
    """Changes a weight at every call."""

    def odd(self, x: Tensor) -> Tensor:
        self.middle.weight.mul_(1.01)
        return x


class LearningUnseen(Odd):
    """The same behind the back of the version that a tensor keeps."""

    def odd(self, x: Tensor) -> Tensor:
        self.middle.weight.data.mul_(1.01)
        self.stem.bias.detach().numpy()[...] += 0.01
        return x


class BesideAGiant(Odd):
    """One value is so large that a sum shows nothing of the others, another infinite."""

    def odd(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = x * self.calls
        x[:, 0], x[:, 1] = -1e9, float("-inf")
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool1d(self.odd(self.stem(x)), 2)
        out: Tensor = self.bn2(self.last(self.drop(torch.cat([x, x], dim=1))))
        return out


class Streaming(Odd):
    """Goes on with what it kept of the forward before, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Tensor | None = None

    def odd(self, x: Tensor) -> Tensor:
        before, self.before = self.before, x
        if before is None or before.shape != x.shape:
            return x
        return x + before.mul_(0.9).add_(x, alpha=0.1)


class Keeping(Odd):
    """Keeps the stem's output, and works on it at the end, when all else is done."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        out: Tensor = self.bn2(self.last(self.drop(self.middle(self.bn1(stem)))))
        stem.zero_()
        return out


class Normed(Odd):
    """The stem's weight is computed in every forward."""

    def __init__(self) -> None:
        super().__init__()
        weight_norm(self.stem)


class Raising(Odd):
    """An op fails, and the model knows what to do."""

    def odd(self, x: Tensor) -> Tensor:
        try:
            return x @ x
        except RuntimeError:
            return x + 1.0


class OnlyAtTheEnd(nn.Sequential):
    """All of the net but its head comes before the dropout."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(
            *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.Flatten(), nn.Dropout(0.5)),
            *(nn.Linear(24, 8), nn.BatchNorm1d(8)),
        )
        self.eval()


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (Odd, 2),
        # The stem's output was worked on; what follows is the same in both passes again.
        *((InPlace, 1), (ThroughAView, 1), (ByNumpy, 1), (Keeping, 1), (Normed, 2)),
        (LearningUnseen, 0),
        (OnItsInput, 2),
        # From there on it is not.
        *((Counting, 1), (OnePixel, 0), (Drawing, 2), (Learning, 1)),
    ],
)
def test_odd_forwards(make: Callable[[], nn.Module], taken: int) -> None:
    """Whatever a forward does, the train pass is the one that it would have been."""
    batches = batches_of(torch.randn(40, 6), 10)
    assert assert_same_bits(make, batches) == taken * len(batches)


@pytest.mark.parametrize("make", [BesideAGiant, Streaming, Raising])
def test_forwards_that_go_on_from_forward_to_forward(make: Callable[[], nn.Module]) -> None:
    """In lockstep, and as one batch, where the next forward is that of the train pass.

    How much is taken hangs on what the model, or an error of its own, still holds.
    """
    batches = batches_of(torch.randn(40, 6), 10)
    assert_same_bits(make, batches)
    assert_same_bits(make, batches_of(torch.randn(40, 6), 40))


class Differentiating(Odd):
    """Calls autograd: runs outside inference mode, where nothing tells weights from the rest."""

    def odd(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(y.square().sum(), y)
        return x + slope


def test_a_forward_that_calls_autograd_keeps_nothing() -> None:
    """It would hold every activation, and find none again."""
    model, batches = Differentiating(), batches_of(torch.randn(40, 6), 10)
    recorder, player = recorder_and_player(1 << 30)
    with borrowed(model, find_batch_norms(model)) as instrumented:
        regime = PopulationRegime(identify(batches), noise_on=False, seed=0)
        run_population(instrumented, batches, regime, forget, carrier=recorder)
        assert instrumented.autograd == [True]
    assert held_by(player) == 0


def held_by(carrier: Any) -> int:
    rows = carrier._shelf._rows.values()
    return sum(place.kept is not None for row in rows for place in row)


def test_nothing_is_held_once_batches_part() -> None:
    """The layer-by-layer pass needs the memory."""

    class Branching(Odd):
        def odd(self, x: Tensor) -> Tensor:
            return self.bn2(x) if float(x.sum()) > 0 else x

    model, batches = Branching(), batches_of(torch.randn(40, 6), 10)
    recorder, player = recorder_and_player(1 << 30)
    with borrowed(model, find_batch_norms(model)) as instrumented:
        regime = PopulationRegime(identify(batches), noise_on=False, seed=0)
        done = run_population(instrumented, batches, regime, forget, carrier=recorder)
    assert done.diverged_at is not None
    assert held_by(player) == 0


class TwoDropouts(Odd):
    """A dropout straight behind the stem, and another further down."""

    def odd(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.3, self.training)


@pytest.mark.parametrize("make", [TwoDropouts, InPlace, Counting, Streaming])
def test_passes_with_single_dropouts(make: type[Odd]) -> None:
    """One on, all others off, and the other way round: the bits of passes that share nothing."""

    def moments(*, shared: bool) -> tuple[list[GroupMoments], int]:
        model, batches = make(), batches_of(torch.randn(40, 6, generator=seeded()), 10)
        found, taken = [], 0
        with borrowed(model, find_batch_norms(model)) as instrumented:
            wiring = wire(instrumented, batches)[0]
            plan = plan_passes(instrumented, batches, wiring)
            for on in (False, True):
                recorder, again = recorder_and_players(1 << 30) if shared else (Plainly(), Plainly)
                odd_one_out = [Watched(again()) for _ in wiring.noises]
                switches: list[Any] = [lambda call, on=on: call if on else None]
                for visit in wiring.noises:
                    key = visit.key
                    switches.append(
                        lambda call, on=on, key=key: call if (call.key == key) != on else None
                    )
                for switch, carrier in zip(switches, [recorder, *odd_one_out], strict=True):
                    regime = PopulationRegime(identify(batches), noise_on=switch, seed=3)
                    run_population(
                        instrumented, batches, regime, forget, plan=plan, carrier=carrier
                    )
                    found += regime.gathered.moments.values()
                taken += sum(each.taken for each in odd_one_out)
        return found, taken

    alone, none = moments(shared=False)
    found, taken = moments(shared=True)
    assert none == 0
    assert taken > 0
    for one, other in zip(alone, found, strict=True):
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.m2, other.m2)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_net_whose_only_dropout_is_in_the_head() -> None:
    """Two convolutions and a pooling per batch are taken; the layer behind the dropout is not."""
    batches = batches_of(torch.randn(40, 3, 6, 6), 10)
    assert assert_same_bits(OnlyAtTheEnd, batches) == 3 * 4


def test_a_repair_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Populations with and without room for shared results."""
    torch.manual_seed(0)
    x = torch.randn(64, 12)
    model = warmed_up(Mlp(), x)
    work = Workload(model, find_batch_norms(model), batches_of(x, 16), (), SilentProgress())
    found = gather_populations(work, with_train=True)
    monkeypatch.setattr(prefix, "_COSTLY", frozenset())
    alone = gather_populations(work, with_train=True)
    assert found.train is not None
    assert alone.train is not None
    for name, population in alone.train.items():
        assert torch.equal(population.var, found.train[name].var)
        assert torch.equal(population.mean, found.train[name].mean)


def linear() -> tuple[Tensor, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(50, 64, generator=generator), nn.Parameter(torch.eye(64) * 2)


def took(
    args: tuple[Any, ...], then: tuple[Any, ...], room: int = 1 << 20, op: Any = aten.linear.default
) -> bool:
    """Whether the second call got the very result of the first."""
    recorder, player = recorder_and_player(room)
    recorder.carry_out(0, aten.linear.default, args, {})
    watched = Watched(player)
    assert torch.equal(watched.carry_out(0, op, then, {}), op(*then))
    return bool(watched.taken)


def test_only_the_same_call_is_answered() -> None:
    """Other values, other strides, another weight, another op, no room: computed."""
    other_weight = nn.Parameter(torch.eye(64) * 2 + 1e-6)
    values, weight = linear()
    with torch.inference_mode():
        x = values.clone()
        assert took((x, weight), (x.clone(), weight))
        assert took((x, weight), (x.clone(), weight), room=x.numel() * 4)
        assert not took((x, weight), (x.clone(), weight), room=x.numel() * 4 - 1)
        other = x.clone()
        other[49, 63] += 1e-4
        assert not took((x, weight), (other, weight))
        assert not took((x, weight), (x[torch.randperm(50)], weight))
        assert not took((x, weight), (x.t().contiguous().t(), weight))
        assert not took((x, weight), (x, other_weight))
        assert not took((x, weight), (x, weight, torch.zeros(64)))
        assert not took((x, weight), (x, weight), op=aten.matmul.default)
        nan = x.clone()
        nan[3, 3] = float("nan")
        recorder, player = recorder_and_player(1 << 20)
        recorder.carry_out(0, aten.linear.default, (nan, weight), {})
        assert bool(player.carry_out(0, aten.linear.default, (nan, weight), {})[3].isnan().all())


def test_a_weight_that_was_changed_in_place_is_another() -> None:
    """However that was done."""
    values, weight = linear()
    with torch.inference_mode():
        x = values.clone()
        recorder, player = recorder_and_player(1 << 20)
        recorder.carry_out(0, aten.linear.default, (x, weight), {})
        weight.data[3, 3] += 1e-6
        second = player.carry_out(0, aten.linear.default, (x, weight), {})
        assert torch.equal(second, functional.linear(x, weight))


def test_nothing_is_kept_from_the_first_dropout_on() -> None:
    """Neither recorded, nor handed out."""
    values, weight = linear()
    with torch.inference_mode():
        x = values.clone()
        recorder, player = recorder_and_player(1 << 20)
        recorder.noise_met(0)
        for batch in (0, 1):
            recorder.carry_out(batch, aten.linear.default, (x, weight), {})
        watched = Watched(player)
        watched.carry_out(0, aten.linear.default, (x, weight), {})
        assert watched.taken == 0
        watched.carry_out(1, aten.linear.default, (x, weight), {})
        assert watched.taken == 1
        recorder.carry_out(1, aten.linear.default, (x, weight), {})
        watched.noise_met(1)
        watched.carry_out(1, aten.linear.default, (x, weight), {})
        assert watched.taken == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["plain", "channels last", "strided"])
def test_hashes_see_a_change_of_any_bit(dtype: torch.dtype, layout: str) -> None:
    """In every place, whatever the dtype, the layout, and the other values."""
    x = torch.randn(2, 3, 20, 21, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, 0, 0, :3] = torch.tensor([-6e4, float("inf"), float("nan")])
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = torch.cat([x, x], dim=3)[..., ::2]
    before = looks.hashes_of(x)
    copy = x.clone(memory_format=torch.preserve_format)
    assert torch.equal(looks.hashes_of(copy), before)
    bits = copy.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
    for place in torch.randint(0, x.numel(), (60,), generator=torch.Generator().manual_seed(1)):
        index = torch.unravel_index(place, x.shape)
        for bit in range(8 * x.element_size() - 1):
            bits[index] ^= 1 << bit
            assert not torch.equal(looks.hashes_of(copy), before)
            bits[index] ^= 1 << bit
    assert torch.equal(looks.hashes_of(copy), before)
    assert not torch.equal(looks.hashes_of(copy.flip(3)), before)


def test_what_finds_no_room_is_computed_and_the_rest_is_taken() -> None:
    """A large result passed over, a small one after it kept."""
    large, weight = linear()
    with torch.inference_mode():
        x, y = large.clone(), large[:5].clone()
        recorder, player = recorder_and_player(y.numel() * 4)
        watched = Watched(player)
        for carrier in (recorder, watched):
            for given in (x, y):
                found = carrier.carry_out(0, aten.linear.default, (given, weight), {})
                assert torch.equal(found, functional.linear(given, weight))
                del found
        assert watched.taken == 1


def test_what_costs_less_makes_room() -> None:
    """Of two results of a size the one stays that took more multiplications, met last or first."""
    thin, thick = (nn.Parameter(torch.ones(8, width)) for width in (4, 64))
    with torch.inference_mode():
        given = [(torch.randn(5, 4), thin), (torch.randn(5, 64), thick)]
        for order in (given, given[::-1]):
            recorder, player = recorder_and_player(5 * 8 * 4)
            watched = Watched(player)
            for carrier in (recorder, watched):
                taken = []
                for each in order:
                    before = watched.taken
                    carrier.carry_out(0, aten.linear.default, each, {})
                    taken.append(watched.taken > before)
            assert taken == [each[1] is thick for each in order]


def test_convolutions_that_are_as_soon_done_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three channels, or channel by channel: they run in both passes."""
    monkeypatch.setattr(prefix, "_EFFORT", 64)
    kernels = nn.Parameter(torch.ones(8, 3, 3, 3)), nn.Parameter(torch.ones(8, 8, 3, 3))
    with torch.inference_mode():
        pictures, features = torch.randn(2, 3, 9, 9), torch.randn(2, 8, 9, 9)
        recorder, player = recorder_and_player(1 << 20)
        watched = Watched(player)
        for carrier in (recorder, watched):
            for given in zip((pictures, features), kernels, strict=True):
                carrier.carry_out(0, aten.conv2d.default, given, {})
        assert watched.taken == 1


def test_there_is_room_only_beside_a_single_window() -> None:
    """Half of what the window leaves, and no more than twice what it holds."""
    model, batches = Odd(), batches_of(torch.randn(40, 6), 10)
    with borrowed(model, find_batch_norms(model)) as instrumented:
        wiring = wire(instrumented, batches)[0]
        whole = int(wiring.live_bytes * 40)

        def plan(memory: int) -> Plan:
            return plan_passes(instrumented, batches, wiring, memory)

        assert (plan(whole).spare, len(plan(whole).windows)) == (0, 1)
        assert plan(whole + 100).spare == 50
        assert plan(100 * whole).spare == 2 * whole
        assert (plan(whole - 1).spare, len(plan(whole - 1).windows)) == (0, 2)
