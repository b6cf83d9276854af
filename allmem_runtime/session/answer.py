"""An answer with the passages it was given, streamed or whole."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

from allmem_runtime.session.answered_from import answered_from
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.writing import FinishReason


class Answer:
    """The answer to a question, written as it is iterated over.

    Args:
        question: of the user.
        passages: what is read again before the question.
        pieces: writes the answer, a piece of text at a time, and returns why it ended.
        cancel: ends the writing at its next token; any thread may call it.
        position: tokens of the session that answers.

    Attributes:
        passages: the passages of the text the answer was given; none if nothing fits the question,
            so that the state alone answers. While it is written, the one that fits the question
            best is first; once it is written, the one that holds most of its words.
        cancel: ends the writing at its next token; any thread may call it.
        finish_reason: why the answer ended, as ``Session.finish_reason``; empty before.
    """

    def __init__(
        self,
        question: str,
        passages: Sequence[Passage],
        pieces: Generator[str, None, FinishReason],
        cancel: Callable[[], None],
        position: Callable[[], int],
    ) -> None:
        self.passages = tuple(passages)
        self._question = question
        self.cancel = cancel
        self._position = position
        self._pieces = pieces
        self.finish_reason: FinishReason = ""
        self._written: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """What was written so far, then the rest as it is written."""
        yield from list(self._written)
        while True:
            try:
                piece = next(self._pieces)
            except StopIteration as end:
                self.finish_reason = end.value or self.finish_reason
                written = "".join(self._written)
                self.passages = answered_from(self.passages, self._question, written)
                return
            self._written.append(piece)
            yield piece

    @property
    def position(self) -> int:
        """Tokens that the fork has read and written: the session's, passages, question, answer."""
        return self._position()

    @property
    def text(self) -> str:
        """The whole answer; what is not written yet is written first."""
        for _ in self:
            pass
        return "".join(self._written)
