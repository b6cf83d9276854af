"""Between two steps a model costs no processor time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from allmem_runtime import load
from allmem_runtime.engine import opening

LIMIT = 0.01  # seconds; threads that go on waiting awake take 0.04, sleeping ones 0.0001


def awake_after_steps(model_dir: Path) -> list[float]:
    """Processor time of several pauses after a step on two threads."""
    session = load(model_dir, device="cpu", threads=2).session(undo=False)
    session.feed([5] * 64)
    pauses = []
    for _ in range(5):
        session.feed([5] * 16, "all")
        before = time.process_time()
        time.sleep(0.1)
        pauses.append(time.process_time() - before)
    return pauses


def test_threads_sleep_when_a_step_is_over(tiny_model_dir: Path) -> None:
    assert min(awake_after_steps(tiny_model_dir)) < LIMIT


def test_threads_that_are_not_stopped_would_be_noticed(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("session.force_spinning_stop", "session.intra_op.spin_duration_us"):
        monkeypatch.delitem(opening._CONFIGURATION, name)
    # Other processes may take the processor from threads that wait awake.
    assert max(awake_after_steps(tiny_model_dir)) > LIMIT
