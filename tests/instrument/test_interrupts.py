"""Ctrl-C in the middle of lockstep: the forwards that wait in threads are let go."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.nets import Mlp, batches_of, warmed_up
from varshift_cli import scan
from varshift_cli.instrument import forwards


@pytest.mark.parametrize("where", ["_wait", "resume", "start"])
@pytest.mark.parametrize("after", [True, False])
def test_interrupted_while_a_forward_runs(monkeypatch, where, after):
    """Whichever side was to move, every thread ends and the interrupt comes out as it is."""
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    net = warmed_up(Mlp(), x)
    real, calls = getattr(forwards.PausedForward, where), iter(range(10_000))

    def interrupted(self, *arguments):
        if next(calls) == 2:
            if after:
                real(self, *arguments)
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(forwards.PausedForward, where, interrupted)
    threads = threading.active_count()

    with pytest.raises(KeyboardInterrupt):
        scan(net, batches_of(x, 16))

    assert threading.active_count() == threads
    assert torch._C._len_torch_dispatch_stack() == 0
    monkeypatch.undo()
    assert scan(net, batches_of(x, 16)).layers
