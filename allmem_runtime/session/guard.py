"""Who may touch a session's state now, who waits, and who must not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from allmem_runtime.errors import SessionStateError


class MomentLock:
    """Held while the state is changed or copied; other threads wait for that moment to pass.

    Within one thread there is nobody to wait for: what a signal handler finds half done is busy.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._inside:
            self._lock.release()
            raise SessionStateError(
                "The session is busy: this thread is in the middle of a call of it.",
                "Call again when that has returned, for example not from a signal handler.",
            )
        self._inside = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        self._lock.release()


class Guard:
    """A lock for moments and a name for the call that is open over many of them.

    An iterator that reads or writes is open from its first item until it is exhausted or closed.
    It takes the lock for each step and each change of the session's place only, so between two of
    those any thread may save or fork the session; nothing else may move the state on meanwhile.

    Attributes:
        lock: held while the state is changed or copied, for a step at most.
    """

    def __init__(self) -> None:
        self.lock = MomentLock()
        self._open = ""

    @contextmanager
    def operation(self, what: str) -> Iterator[None]:
        """The right to move the state on, until the body ends.

        Args:
            what: a clause for messages to others.

        Raises:
            SessionStateError: another call has it.
        """
        self._refuse_if_open()  # without waiting for a step of the call that has it
        with self.lock:
            self._refuse_if_open()
            self._open = what
        try:
            yield
        finally:
            self._open = ""

    def _refuse_if_open(self) -> None:
        if self._open:
            raise SessionStateError(
                f"The session is busy: {self._open}.",
                "Finish or close that call first, or work on a fork, which can be made meanwhile.",
            )
