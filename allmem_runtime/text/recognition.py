"""What a session knows of the sources it is given: which are new, unchanged, grown, changed, gone.

A file is recognized by its path and by what was read of it: a digest of its first bytes. One that
was moved or copied is recognized by its contents alone. A stream can be read once and has no path,
so its beginning decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from allmem_runtime.errors import SourceError
from allmem_runtime.quantities import counted
from allmem_runtime.source_mark import HEAD_BYTES, RunningDigest, SourceMark
from allmem_runtime.text.sources import Source

What = Literal["new", "unchanged", "unfinished", "grown", "changed", "gone"]


@dataclass(frozen=True, slots=True)
class Found:
    """A source beside what a session has read of it.

    Attributes:
        source: what was given.
        what: how it stands to what was read.
        pieces: its bytes that were not read; all of them of a changed file.
        mark: what was read of it, with its running digest where there is more to read; None of a
            new source.
        why: of a changed source, what tells.
    """

    source: Source
    what: What
    pieces: Iterator[bytes]
    mark: SourceMark | None = None
    why: str = ""


def recognize(source: Source, marks: Sequence[SourceMark]) -> Found:
    """Find a source among those that a session has read.

    Args:
        source: a file, or a stream that nothing was read of.
        marks: what was read, in the order of reading.

    Raises:
        SourceError: it cannot be read, or is a stream that was changed.
    """
    known = [mark for mark in reversed(marks) if mark.offset or mark.location or mark.head_bytes]
    return _stream(source, known) if source.stream is not None else _file(source, known)


def _file(source: Source, known: Sequence[SourceMark]) -> Found:
    here = [mark for mark in known if mark.location == source.location]
    if source.missing:
        return Found(source, "gone", iter(()), here[0])
    elsewhere = [mark for mark in known if mark not in here and _may_be(source, mark)]
    for mark in (*here, *elsewhere):
        if (running := _begins_with(source, mark)) is not None:
            return _rest(source, mark, running)
    # Versions of one text may begin alike: another path makes another source of them.
    nameless = [mark for mark in known if not mark.name and _head_is(source, mark)]
    for mark in (*here, *nameless):
        return Found(
            source, "changed", source.pieces(), mark, _difference(source, source.size, mark)
        )
    return Found(source, "new", source.pieces())


def _may_be(source: Source, mark: SourceMark) -> bool:
    """Whether a file of another path may be the one that was read."""
    if not mark.finished or not mark.name or mark.name == source.name:
        return mark.offset > 0 or mark.head_bytes > 0
    return mark.offset == source.size


def _begins_with(source: Source, mark: SourceMark) -> RunningDigest | None:
    """The digest of what was read, if the file still begins with it."""
    assert source.size is not None
    if source.size < mark.offset:
        return None
    if not mark.digest:  # of an earlier version, or of a stream that was continued
        same = _head_is(source, mark) and (not mark.finished or source.size == mark.offset)
        return source.digest(mark.offset) if same else None
    running = source.digest(mark.offset)
    return running if running.hexdigest() == mark.digest else None


def _head_is(source: Source, mark: SourceMark) -> bool:
    assert source.size is not None
    if source.size < mark.head_bytes:
        return False
    return not mark.head_bytes or source.digest(mark.head_bytes).hexdigest() == mark.head


def _rest(source: Source, mark: SourceMark, running: RunningDigest) -> Found:
    if mark.finished and source.size == mark.offset:
        return Found(source, "unchanged", iter(()), mark)
    what: What = "grown" if mark.finished else "unfinished"
    return Found(source, what, source.pieces(mark.offset), _running(mark, running))


def _running(mark: SourceMark, running: RunningDigest) -> SourceMark:
    copy = mark.copy()
    copy.running = running
    return copy


def _stream(source: Source, known: Sequence[SourceMark]) -> Found:
    known = [mark for mark in known if mark.head_bytes]
    head, pieces = _head(source, max((mark.head_bytes for mark in known), default=0))
    for mark in sorted(known, key=lambda mark: -mark.offset):
        if hashlib.sha256(head[: mark.head_bytes]).hexdigest() != mark.head:
            continue
        if mark.finished and mark.name not in ("", source.name) and mark.head_bytes < HEAD_BYTES:
            # A short file, and a stream that begins with it: the same only if both end there.
            piece = b"" if len(head) > mark.offset else next(pieces, b"")
            if len(head) != mark.offset or piece:
                pieces = chain([piece], pieces)
                continue
        running = hashlib.sha256()
        rest = _after(chain([head], pieces), source, mark, running)
        if not mark.finished:
            return Found(source, "unfinished", rest, _running(mark, running))
        first = next(rest, b"")
        if not first:
            return Found(source, "unchanged", iter(()), mark)
        return Found(source, "grown", chain([first], rest), _running(mark, running))
    return Found(source, "new", chain([head] if head else [], pieces))


def _head(source: Source, length: int) -> tuple[bytes, Iterator[bytes]]:
    """At least the first bytes of a stream, if it has as many, and what follows."""
    pieces, head = source.pieces(), b""
    while len(head) < length and (piece := next(pieces, b"")):
        head += piece
    return head, pieces


def _after(
    pieces: Iterator[bytes], source: Source, mark: SourceMark, running: RunningDigest
) -> Iterator[bytes]:
    """What follows the bytes that were read, once these turn out to be the same."""
    left = mark.offset
    while left:
        piece = next(pieces, b"")
        if not piece:
            raise _changed(source, mark, mark.offset - left)
        running.update(piece[:left])
        rest, left = piece[left:], max(0, left - len(piece))
        if not left:
            if mark.digest and running.hexdigest() != mark.digest:
                raise _changed(source, mark, None)
            if rest:
                yield rest
    yield from pieces


def _changed(source: Source, mark: SourceMark, size: int | None) -> SourceError:
    return SourceError(
        f"{source.name} was changed since it was read: {_difference(source, size, mark)}.",
        "Give it as it was, read it as new text with `--stream -`, or name another --session file.",
    )


def _difference(source: Source, size: int | None, mark: SourceMark) -> str:
    whose = "its text" if source.document is not None else "it"
    if size is not None and size < mark.offset:
        return f"{whose} had {counted(mark.offset, 'byte')} when it was read, now it has {size:,}"
    whose = "its text's" if source.document is not None else "its"
    if mark.offset == 1:
        return f"{whose} first byte is not the one that was read"
    return f"{whose} first {mark.offset:,} bytes are not those that were read"
