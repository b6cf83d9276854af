"""Feed a source to a state, piece by piece, so that it can be left at any of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from allmem_runtime.session.cursor import Cursor
from allmem_runtime.text.blocks import Block, Blocks
from allmem_runtime.text.parts import After
from allmem_runtime.text.pause import Pause
from allmem_runtime.text.reading import Progress, Reading
from allmem_runtime.text.segments import Segment
from allmem_runtime.text.tokenizer import Tokenizer

HEALTH_TOKENS = 1 << 14
"""Tokens between two looks for values that are not finite."""


def ingest(
    cursor: Cursor,
    tokenizer: Tokenizer,
    blocks: Blocks,
    lock: AbstractContextManager[None],
    leave: Callable[[Block], None],
    taken: Callable[[Segment, int, int, int], None],
    lead: Callable[[], tuple[str, After]],
) -> Iterator[Progress]:
    """Read to the end of the source, or until told to stop.

    Only whole pieces are fed before the source ends, so the pieces, and with them the state to
    the last bit, do not depend on interruptions.

    Args:
        cursor: the state; its source mark says where the source begins.
        tokenizer: of the model.
        blocks: the source.
        lock: held while the place changes, never while the source is waited for.
        leave: told what was pulled from the source and not taken: with each segment, and all of it
            if the source is left unfinished.
        taken: told each segment; see ``Reading``.
        lead: text that goes before the source; see ``Reading``.

    Yields:
        Progress after each piece, at each pause of the source, and once more at the end.

    Raises:
        SourceError: the source cannot be read.
        SessionStateError: a step failed, or the state is not finite any more.
    """
    place = cursor.place
    fed = _Fed(place.position + len(place.pending), place.source.offset)

    def told(segment: Segment, first_byte: int, count: int, before: int) -> None:
        taken(segment, first_byte, count, before)
        fed.taken(place.position + len(place.pending) + before + count, segment.end)

    with lock:
        reading = Reading(tokenizer, place.source, told, lead)
    begun, first, checked = time.perf_counter(), place.position, place.position

    def progress(paused: bool = False) -> Progress:
        tokens = place.position - first
        rate = tokens / max(time.perf_counter() - begun, 1e-9)
        return Progress(
            tokens, place.position, rate, fed.bytes(place.position), reading.replaced, paused
        )

    def queue(segments: Iterator[list[int]]) -> Iterator[None]:
        """Whoever forks or saves the session finds a segment taken wholly or not at all."""
        more = True
        while more:
            with lock:
                tokens = next(segments, None)
                more = tokens is not None
                cursor.queue(tokens or ())
                leave(reading.unread())
            if more:
                yield

    def queued() -> Iterator[Pause | None]:
        for block in blocks:
            if isinstance(block, Pause):
                yield block
            else:
                yield from queue(reading.push(block))
        if not cursor.stop.is_set():  # a source that is told to stop may just end
            yield from queue(reading.finish())

    try:
        for pause in queued():
            if pause is not None:
                yield progress(paused=True)
                continue
            for _ in cursor.feed(whole=True):
                yield progress()
            if cursor.stop.is_set():
                return
            if place.position - checked >= HEALTH_TOKENS:
                cursor.check_memory()
                checked = place.position
        place.source.finished = not cursor.stop.is_set()
    finally:
        if not place.source.finished:
            held, rest = reading.unread(), blocks.rest()
            leave(held + rest if isinstance(rest, bytes) else rest)
    for _ in cursor.feed():
        yield progress()
    cursor.check_memory()
    yield progress()


class _Fed:
    """How many bytes of a source the tokens that were fed stand for.

    Segments are encoded well before their tokens are fed: a short source is encoded whole before
    its first piece.

    Args:
        position: where the session stands once all is fed that it has taken before.
        count: bytes of the source up to there.
    """

    def __init__(self, position: int, count: int) -> None:
        self._last = (position, count)
        self._ahead: deque[tuple[int, int]] = deque()

    def taken(self, position: int, count: int) -> None:
        """A segment was encoded: where the session and the source stand at its end."""
        self._ahead.append((position, count))

    def bytes(self, position: int) -> int:
        """Bytes up to a position; within a segment, in proportion to its tokens."""
        while self._ahead and self._ahead[0][0] <= position:
            self._last = self._ahead.popleft()
        if not self._ahead or position <= self._last[0]:
            return self._last[1]
        (start, first), (end, last) = self._last, self._ahead[0]
        return first + (last - first) * (position - start) // (end - start)
