"""Finds out how much of the sources a session has read, so that only the rest is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from allmem_runtime.errors import SourceError
from allmem_runtime.state import SourceMark
from allmem_runtime.text.sources import Source

_REMEDY = (
    "Give the source as it was, or read it anew into another --session file; what is new can "
    "also be piped in with `--stream -`."
)


@dataclass(frozen=True, slots=True)
class Part:
    """A source that is still to be read, whole or from somewhere on.

    Attributes:
        source: what to read.
        pieces: its bytes from ``start`` on.
        start: bytes read before.
        new: whether the session has read nothing of it.
    """

    source: Source
    pieces: Iterator[bytes]
    start: int
    new: bool


def whole(source: Source) -> Part:
    """The source from its start."""
    return Part(source, source.pieces(), 0, new=True)


def remaining(sources: list[Source], mark: SourceMark) -> list[Part]:
    """The parts of the sources that a session has not read.

    The session knows the beginning of the source it read last. That source is looked for; those
    before it count as read.

    Args:
        sources: in the order of reading.
        mark: how far the session read its last source.

    Raises:
        SourceError: the source was changed, or the session stopped inside one that is not there.
    """
    if not mark.digest_bytes:
        # Stopped before the first byte: the session expects that source still.
        first = [Part(source, source.pieces(), 0, new=mark.finished) for source in sources[:1]]
        return [*first, *(whole(source) for source in sources[1:])]
    # A stream can be read once: what was looked at goes before the rest.
    heads: dict[int, Iterator[bytes]] = {}
    for index, source in enumerate(sources):
        if source.stream is None:
            found = _file_begins(source, mark)
        else:
            found, heads[index] = _stream_begins(source, mark)
        if found:
            later = [whole(later) for later in sources[index + 1 :]]
            return [*_rest(source, heads.get(index), mark), *later]
    if not mark.finished:
        raise SourceError(
            f"The session stopped after {mark.offset:,} bytes of a source that is not among these, "
            "or that was changed.",
            _REMEDY,
        )
    return [
        Part(source, heads[index], 0, new=True) if index in heads else whole(source)
        for index, source in enumerate(sources)
    ]


def _rest(source: Source, head: Iterator[bytes] | None, mark: SourceMark) -> list[Part]:
    """The rest of the source that was recognised; none if it was read to its end."""
    if not mark.finished:
        if source.size is not None and source.size < mark.offset:
            raise _changed(source, mark, source.size)
        pieces = source.pieces(mark.offset) if head is None else _after(head, mark.offset)
        return [Part(source, pieces, mark.offset, new=False)]
    size = source.size if head is None else sum(len(piece) for piece in head)
    if size != mark.offset:
        raise _changed(source, mark, size)
    return []


def _file_begins(source: Source, mark: SourceMark) -> bool:
    assert source.size is not None
    return source.size >= mark.digest_bytes and source.digest(mark.digest_bytes) == mark.digest


def _stream_begins(source: Source, mark: SourceMark) -> tuple[bool, Iterator[bytes]]:
    """Whether a stream begins like the source that was read, and the stream from its start."""
    pieces = source.pieces()
    head: list[bytes] = []
    size = 0
    while size < mark.digest_bytes and (piece := next(pieces, b"")):
        head.append(piece)
        size += len(piece)
    digest = hashlib.sha256(b"".join(head)[: mark.digest_bytes]).hexdigest()
    return digest == mark.digest and size >= mark.digest_bytes, chain(head, pieces)


def _after(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) > count:
            yield piece[count:]
        count = max(0, count - len(piece))


def _changed(source: Source, mark: SourceMark, size: int | None) -> SourceError:
    return SourceError(
        f"{source.name} was changed since it was read: the session read {mark.offset:,} bytes of "
        f"it, now it has {size:,}.",
        _REMEDY,
    )
