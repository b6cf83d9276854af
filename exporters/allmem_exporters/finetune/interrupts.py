"""Ctrl-C waits for the end of a step, so that no incomplete step is ever kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """While it is open, the first Ctrl-C only sets ``asked``; the second one interrupts at once.

    A handler that somebody else installed is left alone, and so are other threads than the main.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: object = None

    def __enter__(self) -> StopRequest:
        """Begin to hold Ctrl-C back."""
        previous = signal.getsignal(signal.SIGINT)
        if (
            threading.current_thread() is threading.main_thread()
            and previous is signal.default_int_handler
        ):
            self._previous = previous
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Put the former handler back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True
