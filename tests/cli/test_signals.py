"""What Ctrl-C calls, for how long, and that nothing is kept alive by it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from allmem_runtime.cli.signals import Interrupts


def press(interrupts: Interrupts) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    deadline = time.monotonic() + 5
    while not interrupts.requested and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_first_ctrl_c_calls_what_is_running_and_is_remembered() -> None:
    calls: list[str] = []
    with Interrupts(lambda: calls.append("always")) as interrupts:
        with interrupts.also(lambda: calls.append("over")):
            pass
        with interrupts.also(lambda: calls.append("running")):
            press(interrupts)
        with interrupts.also(lambda: calls.append("late")):
            pass
    assert calls == ["always", "running", "late"]


def test_after_rearming_the_next_ctrl_c_is_a_first_one() -> None:
    calls: list[str] = []
    with Interrupts(lambda: calls.append("called")) as interrupts:
        press(interrupts)
        interrupts.rearm()
        assert (interrupts.requested, interrupts.ever) == (False, True)
        press(interrupts)
    assert calls == ["called", "called"]


def test_the_handler_from_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
