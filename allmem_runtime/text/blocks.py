"""Whatever a source gives, cut once into blocks of bounded size."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.text.pause import PAUSE, Pause

BLOCK_BYTES = 1 << 16
BLOCK_IDS = 1 << 12

Block = bytes | list[int]


class Blocks:
    """Cuts whatever a source gives into blocks of at most ``BLOCK_BYTES`` or ``BLOCK_IDS``.

    Args:
        source: bytes, a text, a file object, a sequence of token ids, or an iterable of any of
            these, which may also give ``PAUSE``. A ``str`` is the text itself, never a path. A
            source that reads ahead says with a method ``rest()`` which bytes it holds.

    Raises:
        UsageError: the source is nothing of the kind.
    """

    def __init__(self, source: Any) -> None:
        self._held_ahead: Callable[[], bytes] = getattr(source, "rest", bytes)
        if isinstance(source, bytes | bytearray | memoryview | str):
            self._items: Iterator[Any] = iter([source])
        elif hasattr(source, "read"):
            self._items = read_blocks(source)
        elif isinstance(source, Iterable):
            self._items = iter(_joined(source))
        else:
            raise UsageError(
                f"A {type(source).__name__} is no source.",
                "Give bytes, a text, a file opened for reading, or an iterable of these.",
            )
        self._item: bytes | str | list[int] = b""
        self._at = 0
        self._blocks = self._cut()
        self._first: list[Block | Pause] = []

    def begin(self) -> None:
        """Wait for the first block, so that a source that gives none is known before it counts.

        Raises:
            SourceError: the source cannot be read.
        """
        self._first += itertools.islice(self._blocks, 1)

    def __iter__(self) -> Iterator[Block | Pause]:
        """Blocks in order, and the source's pauses between them; no block is empty."""
        while self._first:
            yield self._first.pop()
        yield from self._blocks

    def _cut(self) -> Iterator[Block | Pause]:
        for item in self._items:
            if item is PAUSE:
                yield PAUSE
                continue
            self._item, self._at = _item(item), 0
            size = BLOCK_IDS if isinstance(self._item, list) else BLOCK_BYTES
            while self._at < len(self._item):
                part = self._item[self._at : self._at + size]
                self._at += size
                yield _encoded(part)

    def rest(self) -> Block:
        """What was taken from where the source comes from and no block has held yet."""
        own = _encoded(self._item[self._at :])
        return own + self._held_ahead() if isinstance(own, bytes) else own


def read_blocks(file: Any, name: str = "The source", size: int = BLOCK_BYTES) -> Iterator[Any]:
    """Blocks of a file object, bytes or text as it gives them.

    Args:
        file: opened for reading. ``read1`` and raw reads hand on what a pipe has; a buffered
            read would wait for a whole block.
        name: what to call it.
        size: of a block, at most.

    Raises:
        SourceError: it cannot be read, or does not block.
    """
    read = getattr(file, "read1", file.read)
    while True:
        try:
            block = read(size)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.",
                "Check the file and its permissions; a text is to be in UTF-8.",
            ) from error
        if block is None:
            raise SourceError(f"{name} is non-blocking.", "Open it in blocking mode.")
        if not block:
            return
        yield block


def _joined(items: Iterable[Any]) -> Iterator[Any]:
    """Single ids gathered into lists; everything else as it comes."""
    gathered: list[int] = []
    for item in items:
        if isinstance(item, Integral):
            gathered.append(int(item))
            if len(gathered) < BLOCK_IDS:
                continue
        if gathered:
            yield gathered
            gathered = []
        if not isinstance(item, Integral):
            yield item
    if gathered:
        yield gathered


def _item(item: Any) -> bytes | str | list[int]:
    if isinstance(item, str | bytes):
        return item
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if isinstance(item, Sequence) or hasattr(item, "__array__"):  # NumPy need not be loaded
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
