"""Reads a text into a session with passages and saves it, going on where a kill has left it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from allmem_runtime import Model
from allmem_runtime.errors import UsageError
from allmem_runtime.passages.keeping import Text
from allmem_runtime.quantities import format_duration
from allmem_runtime.session.kept_text import KeptText, Passage, Segment
from allmem_runtime.session.session import Session

SAVE_SECONDS = 300.0
"""Between two savings while a text is read."""

_SAY_SECONDS = 30.0


def say(line: str) -> None:
    """Tell how far a measurement is."""
    print(line, flush=True)


class TimeLeft:
    """How long a number of steps will take, by those that were done since it was made."""

    def __init__(self, total: int) -> None:
        self._began, self._left, self._done = time.perf_counter(), total, 0

    def step(self) -> str:
        """One more is done; the time left, as a text."""
        self._done += 1
        self._left -= 1
        seconds = (time.perf_counter() - self._began) / self._done * self._left
        return f"{format_duration(seconds)} left"


def read_once(model: Model, text: str, name: str, path: Path) -> Session:
    """A session that has read the text, saved to ``path`` with its text beside it.

    Raises:
        UsageError: the session there has lost its text.
    """
    data = text.encode("utf-8")
    if path.exists():
        session = model.open(path, undo=False)
        if session.text_failure or not session.text_digest:
            raise UsageError(f"{path} has lost its text.", session.text_failure)
        if session.source.finished and session.position:
            return session
    else:
        session = model.session(undo=False, text=path)
    offset = session.source_offset
    began = said = saved = time.perf_counter()
    for progress in session.ingest(data[offset:], name=name):
        now = time.perf_counter()
        if now - said >= _SAY_SECONDS:
            said, done = now, progress.source_bytes - offset
            left = (now - began) / max(1, done) * (len(data) - offset - done)
            rate = progress.tokens_per_second
            say(
                f"read {progress.position:,} tokens, {100 * progress.source_bytes // len(data)} %, "
                f"{rate:.0f} a second, {format_duration(left)} left"
            )
        if now - saved >= SAVE_SECONDS:
            session.save(path)
            saved = time.perf_counter()
    session.save(path)
    if session.text_failure:
        raise UsageError("The text is not kept.", session.text_failure)
    return session


class TimedText:
    """Whoever keeps a text, with the time that its last search took.

    Attributes:
        seconds: of the last search.
    """

    def __init__(self, text: KeptText) -> None:
        self._text = text
        self.seconds = 0.0

    def take(self, at: str, segment: Segment) -> str:
        """See ``KeptText``."""
        return self._text.take(at, segment)

    def save(self, at: str, session: Path) -> None:
        """See ``KeptText``."""
        self._text.save(at, session)

    def find(
        self, at: str, question: str, earlier: Sequence[str], most: int, tokens: int,
        count: Callable[[str], int],
    ) -> list[Passage]:  # fmt: skip
        """See ``KeptText``."""
        began = time.perf_counter()
        try:
            return self._text.find(at, question, earlier, most, tokens, count)
        finally:
            self.seconds = time.perf_counter() - began

    def known(self, at: str, question: str) -> float:
        """See ``KeptText``."""
        return self._text.known(at, question)

    def beginning(self, at: str, characters: int) -> str:
        """See ``KeptText``."""
        return self._text.beginning(at, characters)

    def fork(self) -> TimedText:
        """See ``KeptText``."""
        return TimedText(self._text.fork())

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return self._text.nbytes


def timed(session: Session) -> TimedText:
    """Time the searches of a session from now on."""
    text = session.text
    if not isinstance(text, Text):
        raise UsageError("The text of the session is not kept.", session.text_failure)
    keeper = TimedText(text)
    session.keep_text(keeper)
    return keeper
