"""A source that is still being written: reading it in a thread, and noticing its pauses."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from allmem_runtime.text.pause import PAUSE, Pause

_QUEUE_PIECES = 4
_POLL_SECONDS = 0.1
"""How long a waiting reader may take to notice that it should end."""
_HANDOVER_SECONDS = 0.5
"""How long a thread that has just read something may take to hand it over."""


class PausingSource:
    """Iterates over pieces that arrive at their own pace.

    A thread reads ahead into a bounded queue, so a fast writer waits and a slow one does not
    keep the reader from answering. After a pause the next marker comes only when more text did.

    Args:
        pieces: where the bytes come from; read in the thread.
        pause: seconds without a new piece after which ``PAUSE`` is given; None gives none.
    """

    def __init__(self, pieces: Iterator[bytes], pause: float | None) -> None:
        self._pieces = pieces
        self._pause = pause
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUE_PIECES)
        self._late: bytes | BaseException | None = None  # read when the queue was full at the end
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="allmem source", daemon=True)

    def end(self) -> None:
        """Make the iteration end soon, with a last ``PAUSE``; from any thread or signal handler."""
        self._ended.set()

    def rest(self) -> bytes:
        """What was read ahead and not given yet; the reading ends for good."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(_HANDOVER_SECONDS)  # in vain where it waits for a silent writer
        read: list[bytes | BaseException | None] = []
        while not self._queue.empty():
            read.append(self._queue.get_nowait())
        return b"".join(item for item in [*read, self._late] if isinstance(item, bytes))

    def __iter__(self) -> Iterator[bytes | Pause]:
        """The pieces and pauses in order; what the reading raised is raised here."""
        if self._thread.ident is None:
            self._thread.start()
        due = False
        since = time.monotonic()
        while not self._ended.is_set():
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if due and self._pause is not None and time.monotonic() - since >= self._pause:
                    due = False
                    yield PAUSE
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
            due = True
            since = time.monotonic()
        yield PAUSE  # told to end; the source itself has not come to its end

    def _read(self) -> None:
        last: BaseException | None = None
        try:
            for piece in self._pieces:
                if not self._put(piece):
                    return
        except Exception as error:  # handed to the thread that iterates, whatever it is
            last = error
        self._put(last)

    def _put(self, item: bytes | BaseException | None) -> bool:
        """Wait for room in the queue; False if nobody reads any more."""
        while True:
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                return not self._ended.is_set()
            except queue.Full:
                if self._ended.is_set():
                    self._late = item
                    return False
