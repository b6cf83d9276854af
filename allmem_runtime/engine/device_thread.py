"""Where work on a device is done: for CUDA in one thread of its own, for the CPU in the caller's.

ONNX Runtime keeps what it captured per thread, with handles and workspaces beside it that live as
long as the model, and a capture fails if another thread allocates or copies meanwhile. So one
thread talks to CUDA, for all models of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class CallingThread:
    """Work is done at once, in the thread that wants it."""

    def do(self, work: Callable[[], T]) -> T:
        """The result of ``work``."""
        return work()


class OwnThread:
    """Work of all threads is done in one, in the order of asking."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "allmem-cuda", self._enter)
        self._inside = threading.local()

    def _enter(self) -> None:
        self._inside.yes = True

    def do(self, work: Callable[[], T]) -> T:
        """The result of ``work``; what it raises is raised here.

        An exception that a signal handler raises here waits until the work is done: nobody may
        find the state half renewed.
        """
        if getattr(self._inside, "yes", False):
            return work()
        future = self._worker.submit(work)
        try:
            return future.result()
        except BaseException:
            _outwait(future)
            raise


def _outwait(future: Future[T]) -> None:
    """Wait for the end of the work, whatever signals come."""
    while not future.done():
        try:
            future.exception()
        except BaseException:
            continue


DeviceThread = CallingThread | OwnThread

_CALLING_THREAD = CallingThread()
_OWN_THREAD: list[OwnThread] = []
_MAKING = threading.Lock()


def device_thread(device_name: str) -> DeviceThread:
    """The thread that does the work of ``cpu`` or ``cuda``."""
    if device_name == "cpu":
        return _CALLING_THREAD
    with _MAKING:
        if not _OWN_THREAD:
            _OWN_THREAD.append(OwnThread())
    return _OWN_THREAD[0]
