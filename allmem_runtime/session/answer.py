"""An answer with the passages it was given, streamed or whole."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Protocol

from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.writing import FinishReason


class Answering(Protocol):
    """Who writes an answer."""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """What is read again, by then the best first."""

    @property
    def position(self) -> int:
        """Tokens behind and in the answer."""

    def cancel(self) -> None:
        """End the writing at its next token; any thread may call this."""

    def pieces(self) -> Generator[str, None, FinishReason]:
        """Write the answer, a piece of text at a time; returns why it ended."""


class Answer:
    """The answer to a question, written as it is iterated over.

    Args:
        answering: who writes it.

    Attributes:
        cancel: ends the writing at its next token; any thread may call it.
        finish_reason: why the answer ended, as ``Session.finish_reason``; empty before.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering, self._pieces = answering, answering.pieces()
        self.cancel = answering.cancel
        self.finish_reason: FinishReason = ""
        self._written: list[str] = []
        self._writing = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        """What was written so far, then the rest as it is written; any thread may iterate."""
        shown = 0
        while self._reaches(shown):
            yield self._written[shown]
            shown += 1

    def _reaches(self, number: int) -> bool:
        """Whether there is a piece of this number; it is written if it is the next one."""
        with self._writing:
            if number == len(self._written):
                try:
                    self._written.append(next(self._pieces))
                except StopIteration as end:
                    self.finish_reason = end.value or self.finish_reason
            return number < len(self._written)

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The passages of the text that are read again; none if nothing fits the question.

        Where there are none, the state alone answers. Before the first piece of text, those that
        the search found, the best first; from then on, those of them that fit, or that a
        translation of the question found, the one first that the answer is written from.
        """
        return self._answering.passages

    @property
    def position(self) -> int:
        """Tokens behind and in the answer: the session's, the passage, the question, the answer."""
        return self._answering.position

    @property
    def text(self) -> str:
        """The whole answer; what is not written yet is written first."""
        for _ in self:
            pass
        return "".join(self._written)
