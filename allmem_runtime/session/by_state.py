"""Answers a question by what a session knows, without passages; and how any answer is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence

from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.session.generating import Generating
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.question_progress import QuestionProgress, Tell
from allmem_runtime.session.writing import FinishReason


class ByState:
    """Answers by the state alone.

    Args:
        session: that answers, a fork of the one that was asked.
        question: of the user.
        tokens: makes the question and all around it, at least one token.
        sampling: how to draw; the model's own way by default.
        tell: is told how far the reading is.
    """

    passages: tuple[Passage, ...] = ()

    def __init__(
        self,
        session: Generating,
        question: str,
        tokens: Callable[[], Sequence[int]],
        sampling: Sampling | None,
        tell: Tell | None,
    ) -> None:
        self._session, self._question, self._tokens = session, question, tokens
        self._sampling, self._tell = sampling, tell
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it at its next piece or token; any thread may call this."""
        self._cancelled.set()
        self._session.cancel()

    @property
    def position(self) -> int:
        """Tokens that the session has, those of the answer among them."""
        return self._session.position

    def pieces(self) -> Generator[str, None, FinishReason]:
        """Write the answer, a piece of text at a time; returns why it ended.

        Raises:
            UsageError: the system text comes too late, or the question is too long.
            SessionStateError: a step failed, or the logits are not finite.
        """
        tokens, session = self._tokens(), self._session
        if self._tell is not None:
            total = len(tokens) - 1
            session.follow(QuestionProgress(self._tell, self._question, total, session.position))
        if not self._cancelled.is_set():
            session.likelihood(tokens, range(0))  # of none, and the last token waits
        return (yield from written(session, self._sampling, self._cancelled))


def written(
    session: Generating, sampling: Sampling | None, cancelled: threading.Event
) -> Generator[str, None, FinishReason]:
    """Write behind what a session has read, unless it was cancelled; returns why it ended."""
    if cancelled.is_set():
        return "cancelled"
    for text in session.reply(sampling=sampling):
        yield text
        if cancelled.is_set():
            session.cancel()  # it may have come just before the writing began
    return session.finish_reason
