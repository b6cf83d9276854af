"""From any source to tokens: blocks, text, segments, and the count of the source's bytes.

It knows nothing of models or states. Memory is bounded by one block and one segment.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.text.segments import Segment, Segmenter, Utf8Reader
from allmem_runtime.text.tokenizer import Tokenizer

BLOCK_BYTES = 1 << 16
BLOCK_IDS = 1 << 12
DIGEST_BYTES = 1 << 16
"""Bytes at the start of a source that tell it from others."""

Block = bytes | list[int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reading is.

    Args:
        tokens: tokens fed by this call.
        position: tokens fed since the session began.
        tokens_per_second: of this call so far.
        source_bytes: bytes of the source encoded so far, those of earlier calls included.
        replaced: U+FFFD that stand for invalid bytes, in this call.
    """

    tokens: int
    position: int
    tokens_per_second: float
    source_bytes: int
    replaced: int


class Blocks:
    """Cuts whatever a source gives into blocks of at most ``BLOCK_BYTES`` or ``BLOCK_IDS``.

    Args:
        source: bytes, a text, a file object, a sequence of token ids, or an iterable of any of
            these. A ``str`` is the text itself, never a path.

    Raises:
        UsageError: the source is nothing of the kind.
    """

    def __init__(self, source: Any) -> None:
        if isinstance(source, bytes | bytearray | memoryview | str):
            self._items: Iterator[Any] = iter([source])
        elif hasattr(source, "read"):
            self._items = _read(source)
        elif isinstance(source, Iterable):
            self._items = iter(_joined(source))
        else:
            raise UsageError(
                f"A {type(source).__name__} is no source.",
                "Give bytes, a text, a file opened for reading, or an iterable of these.",
            )
        self._item: bytes | str | list[int] = b""
        self._at = 0

    def __iter__(self) -> Iterator[Block]:
        """Blocks in order; none is empty."""
        while True:
            while self._at >= len(self._item):
                try:
                    self._item, self._at = _item(next(self._items)), 0
                except StopIteration:
                    return
            size = BLOCK_IDS if isinstance(self._item, list) else BLOCK_BYTES
            part = self._item[self._at : self._at + size]
            self._at += size
            yield _encoded(part)

    def rest(self) -> Block:
        """What the source gave already and no block has held yet."""
        return _encoded(self._item[self._at :])


class Reading:
    """Encodes one source, or the rest of one, segment by segment.

    Args:
        tokenizer: encodes each segment on its own.
        mark: how far the source was read before; kept up to date.
    """

    def __init__(self, tokenizer: Tokenizer, mark: SourceMark) -> None:
        self._tokenizer = tokenizer
        self._mark = mark
        self._reader = Utf8Reader(mark.offset)
        self._segmenter = Segmenter(self._reader)
        self._held = bytearray()  # bytes from mark.offset on
        self._kind: type[Block] | None = None  # a source gives text or ids, not both
        self._hash = hashlib.sha256() if mark.offset == 0 else None
        if self._hash:
            mark.digest, mark.digest_bytes = "", 0
            mark.running = hashlib.sha256()

    @property
    def replaced(self) -> int:
        """U+FFFD that stand for invalid bytes so far."""
        return self._reader.replaced

    def tokens(self, blocks: Iterable[Block]) -> Iterator[list[int]]:
        """Tokens, segment by segment; the mark stands behind a segment once it was handed out.

        Raises:
            UsageError: the source mixes text and token ids.
        """
        for block in blocks:
            if self._kind not in (None, type(block)):
                raise UsageError(
                    "The source mixes text and token ids.", "Give one kind, or use two calls."
                )
            self._kind = type(block)
            if isinstance(block, list):
                yield block
                continue
            self._digest(block)
            self._held += block
            for segment in self._segmenter.push(self._reader.push(block)):
                yield self._taken(segment)
        for segment in [*self._segmenter.push(self._reader.finish()), *self._segmenter.flush()]:
            yield self._taken(segment)

    def unread(self) -> bytes:
        """Bytes that were given to this reading and belong to no segment yet."""
        return bytes(self._held)

    def _taken(self, segment: Segment) -> list[int]:
        tokens = self._tokenizer.encode_text(segment.text)
        count = segment.end - self._mark.offset
        self._mark.advance(bytes(self._held[:count]))
        del self._held[:count]
        return tokens

    def _digest(self, block: bytes) -> None:
        mark = self._mark
        room = DIGEST_BYTES - mark.digest_bytes
        if self._hash is not None and room > 0:
            part = block[:room]
            self._hash.update(part)
            mark.digest, mark.digest_bytes = self._hash.hexdigest(), mark.digest_bytes + len(part)


def _read(file: Any) -> Iterator[bytes | str]:
    """Blocks of a file object; ``read1`` hands on what a pipe has instead of waiting for more."""
    read = getattr(file, "read1", file.read)
    while True:
        try:
            block = read(BLOCK_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"The source cannot be read: {error}.", "Open it in binary mode, or check it."
            ) from error
        if block is None:
            raise SourceError("The source is non-blocking.", "Open it in blocking mode.")
        if not block:
            return
        yield block


def _joined(items: Iterable[Any]) -> Iterator[Any]:
    """Single ids gathered into lists; everything else as it comes."""
    gathered: list[int] = []
    for item in items:
        if isinstance(item, int | np.integer):
            gathered.append(int(item))
            if len(gathered) < BLOCK_IDS:
                continue
        if gathered:
            yield gathered
            gathered = []
        if not isinstance(item, int | np.integer):
            yield item
    if gathered:
        yield gathered


def _item(item: Any) -> bytes | str | list[int]:
    if isinstance(item, str | bytes):
        return item
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if isinstance(item, Sequence | np.ndarray):
        try:
            return [operator.index(i) for i in item]
        except TypeError:
            pass
    raise UsageError(
        f"The source gave a {type(item).__name__}.", "It must give bytes, text or token ids."
    )


def _encoded(part: bytes | str | list[int]) -> Block:
    # Lone surrogates survive as bytes that are not UTF-8, and are counted as such.
    return part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
