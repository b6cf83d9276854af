"""Reads sources into a session: progress, Ctrl-C, pauses of a live source, saving as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from allmem_runtime.cli.resume import Part
from allmem_runtime.cli.signals import Interrupts, Stopped
from allmem_runtime.progress import Printer, Reading
from allmem_runtime.quantities import format_bytes
from allmem_runtime.session.session import Session
from allmem_runtime.source_mark import RunningDigest
from allmem_runtime.text.live import PAUSE, PausingSource
from allmem_runtime.text.sources import EmptySourceError

AUTOSAVE_SECONDS = 600.0
"""Longest work that a power cut can take, where there is a session file."""


_ESTIMATE_SECONDS = 0.5
"""The first moments say nothing about the time left."""


class _Paused(Exception):
    """Raised inside a source to leave the reading while nothing comes."""


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
            items: Iterator[object] = part.pieces
            if part.source.stream is not None:
                live = PausingSource(part.pieces, pause)
                stack.callback(live.end)
                stack.enter_context(self._interrupts.also(live.end))
                items = iter(live)
            total = _Total(self._session, part)
            try:
                self._read(items, total, system, part, on_pause)
            except Stopped:
                pass
            except EmptySourceError:
                if not may_be_empty:
                    raise
            if total.last is not None:
                self._printer.read(total.last)
        return not self._interrupts.requested

    def _read(
        self,
        items: Iterator[object],
        total: _Total,
        system: str | None,
        part: Part,
        on_pause: Callable[[Session], None],
    ) -> None:
        """Read to the end, answering at the pauses."""
        carried, new, read_before = b"", part.new, part.read_before
        while True:
            try:
                self._ingest(self._pieces(carried, items), total, system, new, read_before)
                return
            except _Paused:
                unread = self._session.unread
                carried = unread if isinstance(unread, bytes) else b""
                system, new, read_before = None, False, None
                self._printer.event("pause", position=self._session.position)
                self._autosave()
                on_pause(self._caught_up(carried))

    def save(self) -> None:
        """Save the session, if it has a file."""
        if self._target is None:
            return
        self._session.save(self._target)
        self._saved_at = time.monotonic()
        count = self._target.stat().st_size
        self._printer.notice(f"saved {self._target} ({format_bytes(count)})")
        self._printer.event("saved", path=str(self._target), bytes=count)

    def _ingest(
        self,
        pieces: Iterator[bytes],
        total: _Total,
        system: str | None,
        new: bool,
        read_before: RunningDigest | None,
    ) -> None:
        for step in self._session.ingest(
            pieces, system=system, new_source=new, read_before=read_before
        ):
            self._printer.reading(total.reading(step.position, step.source_bytes, step.replaced))
            self._autosave()

    def _pieces(self, carried: bytes, items: Iterator[object]) -> Iterator[bytes]:
        """The carried bytes, then those of the source; ends it by raising, not by ending.

        A source that ends makes the session cut its last segment there; one that is only left
        is cut later where the text itself says.
        """
        if carried:
            yield carried
        for item in items:
            self._interrupts.check()
            if item is PAUSE:
                raise _Paused
            assert isinstance(item, bytes)
            yield item
        self._interrupts.check()

    def _caught_up(self, carried: bytes) -> Session:
        """A fork that has also read what waits for the end of its segment."""
        fork = self._session.fork()
        if carried:
            for _ in fork.ingest(carried):
                self._interrupts.check()
        return fork

    def _autosave(self) -> None:
        if self._target is not None and time.monotonic() - self._saved_at >= AUTOSAVE_SECONDS:
            self.save()


class _Total:
    """Adds up what the calls of one reading say, which the pauses cut apart."""

    def __init__(self, session: Session, part: Part) -> None:
        self._source = part.source
        self._start_bytes = part.start
        self._start_position = session.position
        self._state_bytes = session.model.state_bytes
        self._began = time.monotonic()
        self.last: Reading | None = None

    def reading(self, position: int, read_bytes: int, replaced: int) -> Reading:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        tokens = position - self._start_position
        left = None
        done = read_bytes - self._start_bytes
        if self._source.size is not None and done > 0 and elapsed >= _ESTIMATE_SECONDS:
            left = max(0, self._source.size - read_bytes) * elapsed / done
        self.last = Reading(
            name=self._source.name,
            read_bytes=read_bytes,
            size=self._source.size,
            tokens=tokens,
            position=position,
            tokens_per_second=tokens / elapsed,
            seconds_left=left,
            state_bytes=self._state_bytes,
            replaced=replaced,
        )
        return self.last
