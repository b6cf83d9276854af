"""Ctrl-C and its like: the first ends the running work at its next boundary, a second at once.

The second does so even inside a step that never ends, see ``unnoticed_signals.py``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from allmem_runtime.cli.leaving import leave
from allmem_runtime.cli.unnoticed_signals import UnnoticedSignals

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""What asks a process to end: a person, a system that shuts down, a terminal that was closed."""


class Interrupts:
    """Catches Ctrl-C, and other signals that are named, while its ``with`` block runs.

    Args:
        on_first: called from the signal handler; it must only set flags.
        signals: numbers of the signals.

    Attributes:
        requested: whether one came.
        ever: the same, whatever was rearmed since.
        last: the number of the one that came last; 0 if none did.
    """

    def __init__(
        self, *on_first: Callable[[], None], signals: Sequence[int] = (signal.SIGINT,)
    ) -> None:
        self.requested = self.ever = False
        self.last = 0
        self._signals = signals
        self._on_first = list(on_first)
        self._before: dict[int, Any] = {}
        self._unnoticed: UnnoticedSignals | None = None

    @contextmanager
    def also(self, on_first: Callable[[], None]) -> Iterator[None]:
        """Call this too while the body runs; at once if Ctrl-C came already.

        Whatever the call belongs to is let go afterwards: an endless stream makes many forks.
        """
        self._on_first.append(on_first)
        try:
            if self.requested:
                on_first()
            yield
        finally:
            self._on_first.remove(on_first)

    def rearm(self) -> None:
        """Forget that Ctrl-C came: it ended one thing, and another one begins."""
        self.requested = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                # One that is ignored stays so: nohup and shells in the background want that.
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                    self._before[number] = signal.signal(number, self._handle)
            self._unnoticed = UnnoticedSignals(lambda: self.requested)
            self._unnoticed.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._unnoticed is not None:
            self._unnoticed.stop()
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._unnoticed is not None:
            self._unnoticed.noticed()
        if self.requested:
            leave(number)
        self.requested = self.ever = True
        self.last = number
        # The buffered stream may be in use by the code that was interrupted.
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), _NOTICE)
        for call in self._on_first:
            call()


_NOTICE = b"\nStopping; Ctrl-C again quits at once.\n"
