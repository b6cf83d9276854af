"""Ctrl-C: the first ends the running work at its next boundary, the second the process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from allmem_runtime.cli.exit_codes import INTERRUPTED


class Stopped(Exception):
    """Raised inside a source to leave the reading where it is."""


class Interrupts:
    """Catches Ctrl-C while its ``with`` block runs.

    Args:
        on_first: called from the signal handler; it must only set flags.

    Attributes:
        requested: whether Ctrl-C came.
        ever: the same, whatever was rearmed since.
    """

    def __init__(self, *on_first: Callable[[], None]) -> None:
        self.requested = self.ever = False
        self._on_first = list(on_first)
        self._before: Any = None
        self._installed = False

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

    def check(self) -> None:
        """Raise ``Stopped`` if Ctrl-C came."""
        if self.requested:
            raise Stopped

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            # Files are replaced atomically, so there is nothing to clean up that matters.
            os._exit(INTERRUPTED)
        self.requested = self.ever = True
        # The buffered stream may be in use by the code that was interrupted.
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), _NOTICE)
        for call in self._on_first:
            call()


_NOTICE = b"\nStopping; Ctrl-C again quits at once.\n"
