import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.nets import Mlp
from varshift_cli import UsageError

NAME = "varshift_cli.integrations.lightning"


@pytest.fixture
def fresh(monkeypatch):
    """Import the callback anew, with these modules in the place of Lightning's."""

    def imported(**packages):
        for name in [each for each in sys.modules if each.split(".")[0] in LIGHTNINGS]:
            monkeypatch.delitem(sys.modules, name)
        for name in LIGHTNINGS:
            monkeypatch.setitem(sys.modules, name, None)
        for name, callback in packages.items():
            parts = {"lightning": ("lightning", "lightning.pytorch", "lightning.pytorch.callbacks")}
            for each in parts.get(name, (name, f"{name}.callbacks")):
                monkeypatch.setitem(sys.modules, each, module(each, callback))
        monkeypatch.delitem(sys.modules, NAME, raising=False)
        return importlib.import_module(NAME)

    yield imported
    sys.modules.pop(NAME, None)


LIGHTNINGS = ("lightning", "pytorch_lightning")


def module(name, callback):
    made = ModuleType(name)
    made.Callback = callback
    made.__path__ = []
    return made


class Theirs:
    """A Callback of Lightning's."""


class Old:
    """A Callback of pytorch_lightning's."""


class Net(Mlp):
    """A LightningModule as far as the callback can tell."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def log(self, name, value, **options):
        self.logged.append((name, value, options))


def fit(callback, epochs=4, *, global_zero=True):
    """What a Trainer does, as far as the callback can tell."""
    torch.manual_seed(0)
    x, net = torch.randn(256, 12), Net()
    data = DataLoader(TensorDataset(x, torch.zeros(256, dtype=torch.int64)), batch_size=64)
    trainer = SimpleNamespace(is_global_zero=global_zero, train_dataloader=data, current_epoch=0)
    callback.on_train_start(trainer, net)
    for trainer.current_epoch in range(epochs):
        net(x)
        callback.on_train_epoch_end(trainer, net)
    return net


@pytest.mark.parametrize(
    ("packages", "base"),
    [
        ({"lightning": Theirs}, Theirs),
        ({"pytorch_lightning": Old}, Old),
        ({"lightning": Theirs, "pytorch_lightning": Old}, Theirs),
    ],
)
def test_either_package(fresh, packages, base):
    """The callback is of the kind that the installed Lightning knows."""
    assert issubclass(fresh(**packages).VarianceShiftCallback, base)


def test_neither_package(fresh):
    """Without Lightning the import says what to install."""
    with pytest.raises(ImportError, match="pip install lightning"):
        fresh()


def test_logs_the_worst_shift(fresh):
    """After every second epoch the worst shift is logged, and the module trains on."""
    callback = fresh(lightning=Theirs).VarianceShiftCallback(every=2, samples=128)

    net = fit(callback)

    history = callback.monitor.history
    assert [each.epoch for each in history] == [2, 4]
    assert net.logged == [
        ("varshift/worst_shift", each.shift, {"rank_zero_only": True}) for each in history
    ]
    assert callback.monitor.report.calibration.samples == 128
    assert net.training


def test_own_batches(fresh):
    """Batches of one's own are taken instead of the trainer's."""
    batches = [torch.randn(40, 12)]
    callback = fresh(lightning=Theirs).VarianceShiftCallback(batches, every=1)

    fit(callback, epochs=1)

    assert callback.monitor.report.calibration.samples == 40


def test_only_the_first_process_scans(fresh):
    """Other processes of a distributed training neither draw nor scan."""
    callback = fresh(lightning=Theirs).VarianceShiftCallback(every=1)

    net = fit(callback, global_zero=False)

    assert (callback.monitor, net.logged) == (None, [])


def test_a_period_of_none(fresh):
    """A period of none is refused when the callback is made."""
    with pytest.raises(UsageError):
        fresh(lightning=Theirs).VarianceShiftCallback(every=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_real_trainer(tmp_path):
    """Lightning's own Trainer, where it is installed, logs the worst shift with its metrics."""
    lightning = pytest.importorskip("lightning.pytorch")
    callback = importlib.import_module(NAME).VarianceShiftCallback(every=2)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Mlp()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    data = DataLoader(TensorDataset(torch.randn(256, 12), torch.arange(256) % 4), batch_size=32)
    trainer = lightning.Trainer(
        max_epochs=4,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), data)

    assert [each.epoch for each in callback.monitor.history] == [2, 4]
    last = callback.monitor.history[-1].shift
    assert float(trainer.callback_metrics["varshift/worst_shift"]) == pytest.approx(last)
