import json

import pytest

from tests import samples
from varshift_cli.errors import NothingToMeasureError, UsageError


def test_request(run, pipeline):
    """The options reach the pipeline; a handful of samples unless another number is said."""
    ended = run("inspect", "m.pt", "--arch", "a.py:N", "--data", "d.npz", "--key", "model", "-q")

    assert ended.code == 0
    (request,) = pipeline.requests
    assert (request.model, request.arch, request.data) == ("m.pt", "a.py:N", "d.npz")
    assert (request.key, request.samples, request.batch_size) == ("model", 8, 8)


def test_numbers_said(run, pipeline):
    """--samples and --batch-size hold as they are said."""
    run("inspect", "m.pt", "--data", "d.npz", "--samples", "20", "--batch-size", "4")

    assert (pipeline.requests[0].samples, pipeline.requests[0].batch_size) == (20, 4)


def test_table(run, pipeline):
    """The table goes to stdout; the next command has the user's own options, not this look's."""
    ended = run("inspect", "model.pt", "--data", "d.npz", "--samples", "20")

    assert ended.out.splitlines()[-2:] or ended.out
    assert "layer1.0.bn1" in ended.out
    assert "varshift scan model.pt --data d.npz" in ended.out
    assert "--samples" not in ended.out


def test_json(run, pipeline):
    """--format json is JSON alone."""
    ended = run("inspect", "model.pt", "--data", "d.npz", "--format", "json")

    assert json.loads(ended.out)["order"] == list(samples.inspection().order)


@pytest.mark.parametrize(
    ("error", "code"), [(NothingToMeasureError("none"), 3), (UsageError("no"), 2)]
)
def test_exit_codes(run, pipeline, error, code):
    """3 when there is nothing to measure, 2 for unusable input."""
    pipeline.error = error

    assert run("inspect", "model.pt").code == code
