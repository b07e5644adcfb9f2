from dataclasses import replace

import pytest

from tests import samples
from varshift_cli.loading.arguments import parse_arguments, show_call
from varshift_cli.report import recorded_options


def report(arch=None, data=None, key=None, container="zip"):
    made = samples.shifted()
    checkpoint = replace(made.checkpoint, arch=arch, key=key, container=container)
    return replace(made, checkpoint=checkpoint, calibration=replace(made.calibration, data=data))


@pytest.mark.parametrize(
    ("recorded", "options"),
    [
        ({}, ()),
        (
            {"arch": "m.py:f(p=0.5, where='none')", "data": "x.npz  9 samples of x, labels y"},
            *[("--arch", "m.py:f", "--arch-arg", "p=0.5", "--arch-arg", "where=none",
               "--data", "x.npz")],
        ),
        (
            {"arch": "a.b:C.make()", "data": "d.py:load(split='a b')  9 samples", "key": "ema"},
            ("--arch", "a.b:C.make", "--key", "ema", "--data", "d.py:load", "--data-arg",
             "split=a b"),
        ),
        ({"arch": "m.py:net", "data": "C:\\x (1).npz  9 samples"},
         ("--arch", "m.py:net", "--data", "C:\\x (1).npz")),
        ({"arch": f"m.py:f(sizes=[{'1, ' * 30}...)"}, ("--arch", "m.py:f", "--arch-arg", "...")),
        ({"arch": "", "container": "module"}, ("--allow-pickle",)),
        ({"arch": "m.py:f()", "container": "module"}, ("--arch", "m.py:f")),
    ],
)  # fmt: skip
def test_options(recorded, options):
    """Model and data as they are typed; what was cut short is left to be filled in."""
    assert recorded_options(report(**recorded)) == options


def test_what_the_settings_say():
    """What the settings file names need not be typed; other data with the same model must be."""
    made = report("m.py:f(p=0.5)", "x.npz  9 samples")

    assert recorded_options(made, arch="m.py:f", data="x.npz") == ()
    assert recorded_options(made, arch="m.py:f", data="y.npz") == ("--data", "x.npz")


@pytest.mark.parametrize(
    "value",
    [1, 0.5, True, None, "none", "true", "(1)", "@f", "1,2", "", [1, "a"], (1, 2), {"a": 1}],
)
def test_values_come_back(value):
    """What is typed again is read as the value that it was."""
    options = recorded_options(report(show_call("m.py:f", {"x": value})))

    assert parse_arguments(options[3::2], "--arch-arg") == {"x": value}
