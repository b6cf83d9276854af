"""How far the reading of a question is; one as long as a document takes as long to read."""

from __future__ import annotations

import time
from collections.abc import Callable

from allmem_runtime.text.reading import Progress

Tell = Callable[[Progress], None]
"""Is told how far a reading is, after each piece."""


class QuestionProgress:
    """Counts the tokens that are read before an answer.

    Args:
        tell: is told after each piece.
        question: of the user, whose bytes stand for all that is read.
        total: tokens that will be read.
        position: tokens read before.
    """

    def __init__(self, tell: Tell, question: str, total: int, position: int) -> None:
        self._tell, self._total, self._position = tell, max(1, total), position
        self._bytes = len(question.encode("utf-8", "surrogatepass"))
        self._tokens, self._began = 0, time.perf_counter()

    def __call__(self, count: int) -> None:
        """So many tokens more were read; those of the answer are not told."""
        if self._tokens >= self._total:
            return
        self._tokens = min(self._tokens + count, self._total)
        rate = self._tokens / max(time.perf_counter() - self._began, 1e-9)
        read = self._bytes * self._tokens // self._total
        self._tell(Progress(self._tokens, self._position + self._tokens, rate, read, 0))
