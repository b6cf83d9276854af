"""One caller at a time: who may touch a session's state now, and who must not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from allmem_runtime.errors import SessionStateError


class Guard:
    """A lock for moments and a name for the call that is open over many of them.

    An iterator that reads or writes is open from its first item until it is exhausted or closed.
    It takes the lock for each step only, so between two of its items the same thread may save
    or fork the session; nothing else may move the state on meanwhile.

    Attributes:
        lock: held while the state is changed or copied.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._open = ""

    @contextmanager
    def moment(self) -> Iterator[None]:
        """The state for a moment.

        Raises:
            SessionStateError: another thread is using it.
        """
        if not self.lock.acquire(blocking=False):
            raise _busy(self._open or "another call is running")
        try:
            yield
        finally:
            self.lock.release()

    @contextmanager
    def operation(self, what: str) -> Iterator[None]:
        """The right to move the state on, until the body ends.

        Args:
            what: a clause for messages to others.

        Raises:
            SessionStateError: another call has it.
        """
        with self.moment():
            if self._open:
                raise _busy(self._open)
            self._open = what
        try:
            yield
        finally:
            self._open = ""


def _busy(what: str) -> SessionStateError:
    return SessionStateError(
        f"The session is busy: {what}.",
        "Finish or close that call first; to work on both at once, fork the session.",
    )
