"""Lets something happen in a chosen step of the engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from allmem_runtime.engine.buffers import DeviceBuffers, Ids, Logits
from allmem_runtime.engine.engine import Engine

Run = Callable[..., Logits]


def during_step(
    monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None], after: bool = False
) -> None:
    """Do something in the given step, counted from now; once."""
    run, count = Engine.run, iter(range(1 << 30))

    def wrapped(self: Engine, buffers: DeviceBuffers, ids: Ids, position: int, rows: Ids) -> Logits:
        due = next(count) == number
        if due and not after:
            act()
        logits = run(self, buffers, ids, position, rows)
        if due and after:
            act()
        return logits

    monkeypatch.setattr(Engine, "run", wrapped)
