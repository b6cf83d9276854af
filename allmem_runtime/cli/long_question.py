"""The progress of reading a question, shown like that of a source where it takes a while."""

from __future__ import annotations

import time

from allmem_runtime.progress import Printer, Reading
from allmem_runtime.session.session import Session
from allmem_runtime.text.reading import Progress

LONG = 2048
"""Bytes of a question whose reading is shown, about 500 tokens."""

SHOWN_AFTER = 1.0
"""Seconds of reading from which on it is shown."""


class LongQuestion:
    """Follows the reading of one question.

    Args:
        question: of the user.
        session: that is asked.
        printer: shows it.
    """

    def __init__(self, question: str, session: Session, printer: Printer) -> None:
        self._size = len(question.encode("utf-8", "surrogatepass"))
        self._state_bytes = session.model.state_bytes
        self._printer = printer
        self._began = time.monotonic()
        self._last: Reading | None = None

    def told(self, step: Progress) -> None:
        """The reading went on by a piece."""
        soon = time.monotonic() - self._began < SHOWN_AFTER
        if self._size < LONG or (soon and self._last is None):
            return
        left = (self._size - step.source_bytes) / step.source_bytes if step.source_bytes else None
        self._last = Reading(
            name="the question",
            read_bytes=step.source_bytes,
            size=self._size,
            tokens=step.tokens,
            position=step.position,
            tokens_per_second=step.tokens_per_second,
            seconds_left=left and left * step.tokens / step.tokens_per_second,
            state_bytes=self._state_bytes,
        )
        self._printer.reading(self._last)

    def done(self) -> None:
        """It was read, or cancelled: leave what was shown of it."""
        if self._last is not None:
            self._printer.read(self._last)
            self._last = None
        self._began = time.monotonic()
