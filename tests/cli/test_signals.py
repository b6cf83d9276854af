"""What Ctrl-C calls, for how long, and that nothing is kept alive by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.cli.unnoticed_signals import GRACE


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


STUCK = """
import hashlib, sys
from allmem_runtime.cli.signals import ENDING, Interrupts
with Interrupts(signals=ENDING):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # hours in native code
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_second_signal_ends_what_never_comes_back_to_python(name: str) -> None:
    number = getattr(signal, name)
    child = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.1)  # it is in the native call
        child.send_signal(number)
        time.sleep(0.1)
        assert child.poll() is None
        child.send_signal(number)
        assert child.wait(20) == 128 + number
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_one_signal_that_was_forgotten_is_none_later() -> None:
    """Each answer of a chat may be ended by its own Ctrl-C."""
    with Interrupts() as interrupts:
        for _ in range(3):
            press(interrupts)
            assert interrupts.requested
            interrupts.rearm()
        time.sleep(2 * GRACE)
