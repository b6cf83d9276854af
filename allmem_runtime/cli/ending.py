"""Works that are ended before they are done: each says so in a line and leaves nothing behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from allmem_runtime.cli.exit_codes import exit_code_of
from allmem_runtime.cli.messages import say
from allmem_runtime.cli.signals import ENDING


class _Ended(KeyboardInterrupt):
    """A signal that asks the process to end; what lets Ctrl-C pass lets this pass too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def said_when_ended(left: str) -> Iterator[None]:
    """Tell in one line that a work was ended, after what it had begun is deleted.

    Signals that ask the process to end are taken like Ctrl-C, so that the body's own ``finally``
    runs. One that is ignored stays so.

    Args:
        left: how it leaves things, such as ``nothing was written``.

    Raises:
        SystemExit: with the exit code that shells give for the signal.
    """
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in set(ENDING) - {signal.SIGINT}:  # Python does it for that one
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, _end)
        yield
    except KeyboardInterrupt as ended:
        number = ended.number if isinstance(ended, _Ended) else signal.SIGINT
        say(f"Stopped by {signal.Signals(number).name}: {left}.")
        raise SystemExit(exit_code_of(number)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise _Ended(number)
