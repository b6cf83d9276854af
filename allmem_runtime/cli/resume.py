"""Finds out how much of the sources a session has read, so that only the rest is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from allmem_runtime.errors import SourceError
from allmem_runtime.source_mark import RunningDigest, SourceMark
from allmem_runtime.text.blocks import Block
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
        read_before: digest of the bytes read before, complete once the first piece came.
    """

    source: Source
    pieces: Iterator[bytes]
    start: int
    new: bool
    read_before: RunningDigest | None = None


def whole(source: Source) -> Part:
    """The source from its start."""
    return Part(source, source.pieces(), 0, new=True)


def unread_part(unread: Block, mark: SourceMark) -> Part:
    """What an earlier reading had pulled from a stream and left unread: the stream's end.

    Args:
        unread: text as bytes; token ids come from no command.
        mark: how far the session read that stream.
    """
    data = bytes(unread)
    source = Source("what had arrived before", mark.offset + len(data))
    return Part(source, iter([data]), mark.offset, new=False)


def remaining(sources: list[Source], mark: SourceMark) -> list[Part]:
    """The parts of the sources that a session has not read.

    The session knows the beginning of the source it read last. That source is looked for; those
    before it count as read. What was read of it is read again, to see that nothing changed: a file
    here, a stream as it comes.

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
    """The rest of the source that was recognized; none if it was read to its end."""
    if not mark.finished:
        if head is not None:
            read = hashlib.sha256()
            pieces = _after(head, source, mark, read)
            return [Part(source, pieces, mark.offset, new=False, read_before=read)]
        assert source.size is not None
        if source.size < mark.offset:
            raise _changed(source, mark, source.size)
        return [
            Part(
                source,
                source.pieces(mark.offset),
                mark.offset,
                new=False,
                read_before=_same(source, mark, source.digest(mark.offset)),
            )
        ]
    if head is not None:
        size, read = 0, hashlib.sha256()
        for piece in head:
            size += len(piece)
            read.update(piece)
        if size != mark.offset:
            raise _changed(source, mark, size)
        _same(source, mark, read)
        return []
    if source.size != mark.offset:
        raise _changed(source, mark, source.size)
    _same(source, mark, source.digest(mark.offset))
    return []


def _file_begins(source: Source, mark: SourceMark) -> bool:
    assert source.size is not None
    if source.size < mark.digest_bytes:
        return False
    return source.digest(mark.digest_bytes).hexdigest() == mark.digest


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


def _after(
    pieces: Iterator[bytes], source: Source, mark: SourceMark, read: RunningDigest
) -> Iterator[bytes]:
    """What follows the bytes that were read, once these turn out to be the same."""
    left = mark.offset
    while left:
        piece = next(pieces, b"")
        if not piece:
            raise _changed(source, mark, mark.offset - left)
        read.update(piece[:left])
        rest, left = piece[left:], max(0, left - len(piece))
        if not left:
            _same(source, mark, read)
            if rest:
                yield rest
    yield from pieces


def _same(source: Source, mark: SourceMark, read: RunningDigest) -> RunningDigest:
    """The digest of what was read, if it is the one that the session knows."""
    if mark.read_digest and read.hexdigest() != mark.read_digest:
        raise SourceError(
            f"{source.name} was changed since it was read: its first {mark.offset:,} bytes are not "
            "those that the session read.",
            _REMEDY,
        )
    return read


def _changed(source: Source, mark: SourceMark, size: int | None) -> SourceError:
    return SourceError(
        f"{source.name} was changed since it was read: the session read {mark.offset:,} bytes of "
        f"it, now it has {size:,}.",
        _REMEDY,
    )
