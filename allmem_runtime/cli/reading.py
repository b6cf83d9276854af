"""Reads sources into a session: progress, Ctrl-C, pauses of a live source, saving as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from allmem_runtime.cli.resume import Part
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.errors import StorageError
from allmem_runtime.progress import Printer, Reading
from allmem_runtime.quantities import format_bytes
from allmem_runtime.session.session import Session
from allmem_runtime.text.live import PausingSource
from allmem_runtime.text.pause import Pause
from allmem_runtime.text.reading import Progress
from allmem_runtime.text.sources import EmptySourceError

AUTOSAVE_SECONDS = 600.0
"""Longest work that a power cut can take, where there is a session file."""

_ESTIMATE_SECONDS = 0.5
"""The first moments say nothing about the time left."""


class Reader:
    """Reads one source after the other.

    Args:
        session: what reads.
        printer: what is told.
        interrupts: Ctrl-C.
        target: where the session is saved; None for nowhere.
    """

    def __init__(
        self, session: Session, printer: Printer, interrupts: Interrupts, target: Path | None
    ) -> None:
        self._session = session
        self._printer = printer
        self._interrupts = interrupts
        self._target = target
        self._saved_at = time.monotonic()

    def read(
        self,
        part: Part,
        *,
        system: str | None = None,
        pause: float | None = None,
        on_pause: Callable[[Session], None] = lambda session: None,
        may_be_empty: bool = False,
    ) -> bool:
        """Read one source, or the rest of one, to its end or to Ctrl-C.

        Args:
            part: what to read.
            system: instruction that opens the conversation.
            pause: seconds without input that make a pause of a stream; None for no pauses.
            on_pause: called at each with a fork that has read all there is.
            may_be_empty: an empty stream is nothing to complain about.

        Returns:
            False if Ctrl-C ended it.
        """
        with ExitStack() as stack:
            stack.enter_context(self._interrupts.also(self._session.cancel))
            pieces: Iterable[bytes | Pause] = part.pieces
            if part.source.stream is not None:
                pieces = live = PausingSource(part.pieces, pause)
                stack.callback(live.end)
                stack.enter_context(self._interrupts.also(live.end))
            total = _Total(self._session, part)
            steps = self._session.ingest(
                pieces,
                system=system,
                new_source=part.mark is None,
                mark=part.mark,
                name=part.source.name,
                location=part.source.location,
                landmarks=part.source.landmarks,
            )
            try:
                self._follow(stack.enter_context(closing(steps)), total, on_pause)
            except EmptySourceError:
                if not may_be_empty:
                    raise
            finally:
                if total.last is not None:
                    self._printer.read(total.last)
        if part.source.path is not None:
            self._session.drop_unread()
        return not self._interrupts.requested

    def _follow(
        self, steps: Iterator[Progress], total: _Total, on_pause: Callable[[Session], None]
    ) -> None:
        """Go through a reading, answering at its pauses, to its end or to Ctrl-C."""
        for step in steps:
            if self._interrupts.requested:
                return
            if step.paused:
                self._printer.event("pause", position=step.position)
                self._autosave()
                on_pause(caught_up(self._session, self._interrupts, total.name))
            else:
                self._printer.reading(total.reading(step))
                self._autosave()

    def save(self) -> None:
        """Save the session, if it has a file."""
        if self._target is None:
            return
        self._session.save(self._target)
        self._saved_at = time.monotonic()
        count = self._target.stat().st_size
        self._printer.notice(f"saved {self._target} ({format_bytes(count)})")
        self._printer.event("saved", path=str(self._target), bytes=count)

    def _autosave(self) -> None:
        if self._target is None or time.monotonic() - self._saved_at < AUTOSAVE_SECONDS:
            return
        try:
            self.save()
        except StorageError as error:  # the reading goes on; there may be room at the next try
            self._printer.notice(f"Not saved yet: {error}")
            self._saved_at = time.monotonic()


def caught_up(
    session: Session, interrupts: Interrupts, name: str, *, undo: bool = False
) -> Session:
    """A fork that has also read what waited for the end of its segment, or had just arrived.

    Args:
        session: what was read; it stays as it is.
        interrupts: Ctrl-C.
        name: of the source that the rest comes from.
        undo: whether the fork can take its answers back.
    """
    fork = session.fork(undo=undo)
    if fork.unread:
        with interrupts.also(fork.cancel):
            for _ in fork.ingest(fork.unread, name=name):
                pass
    return fork


class _Total:
    """Adds up what the calls of one reading say, which the pauses cut apart."""

    def __init__(self, session: Session, part: Part) -> None:
        self._source = part.source
        self._start_bytes = part.start
        self._start_position = session.position
        self._state_bytes = session.model.state_bytes
        self._began = time.monotonic()
        self.last: Reading | None = None

    @property
    def name(self) -> str:
        """Of the source."""
        return self._source.name

    def reading(self, step: Progress) -> Reading:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        tokens = step.position - self._start_position
        left = None
        done = step.source_bytes - self._start_bytes
        if self._source.size is not None and done > 0 and elapsed >= _ESTIMATE_SECONDS:
            left = max(0, self._source.size - step.source_bytes) * elapsed / done
        self.last = Reading(
            name=self.name,
            read_bytes=step.source_bytes,
            size=self._source.size,
            tokens=tokens,
            position=step.position,
            tokens_per_second=tokens / elapsed,
            seconds_left=left,
            state_bytes=self._state_bytes,
            replaced=step.replaced,
        )
        return self.last
