import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.nets import Mlp, warmed_up
from varshift_cli import (
    NothingToMeasureError,
    Policy,
    ReportError,
    Status,
    Suppression,
    VarianceShiftError,
    assert_variance_shift,
    scan,
    to_json,
)


@pytest.fixture(scope="module")
def data():
    return torch.randn(512, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def shifted(data):
    """A net whose second and third BatchNorm are misled by dropout."""
    torch.manual_seed(0)
    return warmed_up(Mlp(p=0.5), data)


@pytest.fixture(scope="module")
def healthy(data):
    """Its twin without dropout, whose statistics have had time to settle."""
    torch.manual_seed(0)
    model = Mlp(p=0.0)
    for _ in range(300):
        model(data)
    return model


def test_healthy_passes(healthy, data):
    """A network that holds passes, and the report comes back with its verdict."""
    report = assert_variance_shift(healthy, data.split(64), max_shift=1.25)

    assert report.verdict.status is Status.PASS
    assert report.verdict.threshold == 1.25


def test_failure_shows_the_table(shifted, data):
    """A layer beyond the threshold fails, and the message is the table with the verdict."""
    with pytest.raises(AssertionError) as caught:
        assert_variance_shift(shifted, data.split(64), max_shift=1.05)

    assert isinstance(caught.value, VarianceShiftError)
    assert caught.value.report.verdict.status is Status.FAIL
    message = str(caught.value)
    assert "layer" in message
    assert f"FAIL      worst {caught.value.report.verdict.worst_layer}, shift" in message
    assert "VS1" in message


def test_undecided_fails_unless_allowed(shifted, data):
    """An undecided verdict fails and says how many samples would decide, unless it is allowed."""
    worst = scan(shifted, data[:64].split(16)).verdict.worst_shift

    with pytest.raises(VarianceShiftError, match="INCONCLUSIVE"):
        assert_variance_shift(shifted, data[:64].split(16), max_shift=worst * 1.0001)
    report = assert_variance_shift(
        shifted, data[:64].split(16), max_shift=worst * 1.0001, allow_inconclusive=True
    )

    assert report.verdict.status is Status.INCONCLUSIVE


def test_all_suppressed_fails(shifted, data):
    """Where nothing was checked nothing passes."""
    policy = Policy(suppressions=(Suppression("all", "*"),))

    with pytest.raises(VarianceShiftError, match="UNCHECKED  no layer was checked"):
        assert_variance_shift(shifted, data.split(64), policy=policy)


def test_baseline(shifted, data, tmp_path):
    """With a baseline only what got worse fails; a path does as well as a report."""
    earlier = scan(shifted, data.split(64))
    path = tmp_path / "base.json"
    path.write_text(to_json(earlier), encoding="utf-8")

    assert_variance_shift(shifted, data.split(64), max_shift=1.01, baseline=earlier)
    assert_variance_shift(shifted, data.split(64), max_shift=None, baseline=path)
    with pytest.raises(ReportError, match="cannot be read"):
        assert_variance_shift(shifted, data.split(64), baseline=tmp_path / "none.json")


def test_nothing_to_measure(data):
    """A network without BatchNorm is no pass."""
    with pytest.raises(NothingToMeasureError):
        assert_variance_shift(nn.Linear(12, 2), data.split(64))


def test_model_as_it_was(shifted, data):
    """A failing assertion hands the model back as it was: flags, buffers, hooks."""
    shifted.train()
    before = {name: buffer.clone() for name, buffer in shifted.named_buffers()}

    with pytest.raises(VarianceShiftError):
        assert_variance_shift(shifted, data.split(64), max_shift=1.0)

    assert all(module.training for module in shifted.modules())
    assert all(torch.equal(before[name], buffer) for name, buffer in shifted.named_buffers())
    assert not any(module._forward_hooks for module in shifted.modules())


SESSION = """
import torch
from torch import nn


def net(p):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(p), nn.BatchNorm1d(8))
    x = torch.randn(512, 8)
    for _ in range(100):
        model(x)
    return model, x.split(64)


def test_passes(assert_variance_shift):
    assert_variance_shift(*net(0.0), max_shift=1.25)


def test_fails(assert_variance_shift):
    assert_variance_shift(*net(0.5), max_shift=1.25)
"""


def test_plugin(tmp_path):
    """In a session of its own: one test passes, one fails, and its failure is the table."""
    (tmp_path / "test_net.py").write_text(SESSION, encoding="utf-8")
    # By its module, so that it is also tried where the package is not installed.
    plugins = ["no:varshift", "varshift_cli.integrations.pytest_plugin", "no:randomly"]
    arguments = [part for plugin in plugins for part in ("-p", plugin)] + ["--color=no"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 1, done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "E       FAIL      worst 2, shift " in done.stdout
    assert "VS101" in done.stdout
    assert "integrations/assertion.py" not in done.stdout  # the failure points at the test


def test_plugin_imports_no_torch():
    """pytest loads the plugin at every start: it imports neither torch, numpy nor rich."""
    code = (
        "import sys, varshift_cli.integrations.pytest_plugin\n"
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
