"""Ends the process where Python does not get to notice a signal, because native code does not end.

Python's own handlers run between two instructions of the main thread. A graph that never ends keeps
that thread in ONNX Runtime for good, and no Ctrl-C would be heard. Python still writes each signal
to a socket at once, from where a thread reads it.
"""

from __future__ import annotations

import select
import signal
import socket
import threading
from collections.abc import Callable

from allmem_runtime.cli.leaving import leave

GRACE = 0.5
"""Seconds in which the main thread, if it can, has noticed a signal."""

_MOST = 64


class UnnoticedSignals:
    """Watches the signals that Python has handlers for, from ``start`` to ``stop``.

    Args:
        stopping: whether a signal has been noticed already, so that the next one ends the process.
    """

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._before = -1
        self._reader, self._writer = socket.socketpair()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin; in the main thread only."""
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="allmem-signals", daemon=True).start()

    def stop(self) -> None:
        """End; in the main thread only."""
        signal.set_wakeup_fd(self._before)
        self._over.set()
        self._writer.close()  # wakes the thread, which closes the other end

    def noticed(self) -> None:
        """The main thread handles what has come so far: it is alive."""
        try:
            while self._reader.recv(_MOST):
                pass
        except OSError:
            return

    def _watch(self) -> None:
        with self._reader:
            while not self._over.is_set():
                select.select([self._reader], [], [])
                # What the main thread notices in this time is gone from the socket afterwards.
                if self._over.wait(GRACE):
                    return
                try:
                    waiting = self._reader.recv(_MOST, socket.MSG_PEEK)
                except OSError:
                    continue
                if len(waiting) > 1 or (waiting and self._stopping()):
                    leave(waiting[-1])
