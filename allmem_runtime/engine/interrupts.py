"""Let Ctrl-C wait for the end of a step, so that it never leaves a state half renewed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred() -> Iterator[None]:
    """Hold Python's own KeyboardInterrupt back while the body runs.

    Python raises it right after a native call returns, which is between a step and its
    bookkeeping. A handler that somebody else installed is left alone: it decides for itself.
    """
    previous = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if not here or previous is not signal.default_int_handler:
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if came:
            signal.default_int_handler(*came[0])
