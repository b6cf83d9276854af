"""Bytes to text, and text to segments that are encoded one by one.

Both depend on the text and the tokenizer alone: feeding the same source byte by byte or in one
piece gives the same segments.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SEGMENT_CHARACTERS = 2048
"""Longest segment; bounds the text held back while a source is read."""

REPLACEMENT = "\ufffd"
_REPLACEMENT_BYTES = 3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# An error copies the bytes being decoded; short windows keep damaged input linear in time.
_WINDOW = 4096
_AROUND = 64
"""Characters on either side of a cut that tell whether tokens lie across it."""
_TRIES = 16
"""Most places of one kind that are tried."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """The text with lone surrogates, which no encoder accepts, as U+FFFD."""
    return _SURROGATE.sub(REPLACEMENT, text)


class Utf8Reader:
    """Decodes UTF-8 that arrives in arbitrary pieces; never fails.

    Each maximal invalid run becomes one U+FFFD, as Python and the Unicode standard have it. A
    byte order mark at the very start of the source is dropped.

    Args:
        start: offset in the source of the first byte that will be pushed.

    Attributes:
        replaced: how many U+FFFD stand for invalid bytes so far.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.replaced = 0
        self.corrections: deque[tuple[int, int]] = deque()
        """(index of a character, source bytes beyond those of its own UTF-8 form)."""
        self._pending = b""
        self._at_start = start == 0
        self._characters = 0

    def push(self, data: bytes) -> str:
        """The text that is certain after these bytes; an unfinished character is held back."""
        data = self._pending + data
        self._pending = b""
        if self._at_start:
            if len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
                self._pending = data
                return ""
            self._at_start = False
            if data.startswith(_BYTE_ORDER_MARK):
                self.corrections.append((0, len(_BYTE_ORDER_MARK)))
                data = data[len(_BYTE_ORDER_MARK) :]
        return self._decode(data, final=False)

    def finish(self) -> str:
        """What an unfinished character at the end of the source becomes."""
        data, self._pending = self._pending, b""
        self._at_start = False
        return self._decode(data, final=True)

    def _decode(self, data: bytes, final: bool) -> str:
        parts: list[str] = []
        view, offset = memoryview(data), 0
        while offset < len(data):
            window = bytes(view[offset : offset + _WINDOW])
            last = offset + len(window) == len(data)
            try:
                good, taken, invalid = window.decode("utf-8"), len(window), 0
            except UnicodeDecodeError as error:
                good, taken = window[: error.start].decode("utf-8"), error.start
                invalid = error.end - error.start
                # Only bytes that could still become a character reach the end of the window.
                unfinished = error.end == len(window) and "end of data" in error.reason
                if unfinished and not (last and final):
                    invalid = 0
                    if last:
                        self._pending = window[taken:]
                        offset = len(data)
            parts.append(good)
            self._characters += len(good)
            offset += taken + invalid
            if invalid:
                parts.append(REPLACEMENT)
                if invalid != _REPLACEMENT_BYTES:
                    self.corrections.append((self._characters, invalid - _REPLACEMENT_BYTES))
                self._characters += 1
                self.replaced += 1
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the text to be encoded on its own.

    Attributes:
        text: 1 to ``SEGMENT_CHARACTERS`` characters.
        end: source bytes up to its end, counted from the start of the source.
    """

    text: str
    end: int


class Segmenter:
    """Cuts a text after the last line end, else before the last space, else hard.

    Where tokens would lie across the cut, the next such place before it is taken, if there is one.
    A cut is decided by the ``SEGMENT_CHARACTERS`` characters since the previous cut and by
    nothing else, so reading can stop at any segment and go on there later.

    Args:
        reader: where the text comes from, so that ``Segment.end`` counts the bytes the source
            really has; without one, the UTF-8 length of the text is counted.
        joins: whether a text may be cut between two others; see ``Tokenizer.joins``.
    """

    def __init__(
        self,
        reader: Utf8Reader | None = None,
        joins: Callable[[str, str], bool] = lambda before, after: True,
    ) -> None:
        self._corrections = reader.corrections if reader else deque[tuple[int, int]]()
        self._end = reader.start if reader else 0
        self._joins = joins
        self._characters = 0
        self._buffer = ""

    def push(self, text: str) -> list[Segment]:
        """The segments that are certain after this text."""
        self._buffer += without_surrogates(text)
        segments, start = [], 0
        while len(self._buffer) - start >= SEGMENT_CHARACTERS:
            cut = self._cut(start)
            segments.append(self._segment(self._buffer[start:cut]))
            start = cut
        self._buffer = self._buffer[start:]
        return segments

    def flush(self) -> list[Segment]:
        """What is left at the end of the source: one segment or none."""
        text, self._buffer = self._buffer, ""
        return [self._segment(text)] if text else []

    def _cut(self, start: int) -> int:
        text = self._buffer[start : start + SEGMENT_CHARACTERS]
        places = list(_places(text))
        # Spaces alone do not tell how the text goes on behind them.
        for place in sorted(places, key=lambda place: text[place : place + _AROUND].isspace()):
            if self._joins(text[max(0, place - _AROUND) : place], text[place : place + _AROUND]):
                return start + place
        return start + places[0]

    def _segment(self, text: str) -> Segment:
        self._characters += len(text)
        self._end += len(text.encode("utf-8"))
        while self._corrections and self._corrections[0][0] < self._characters:
            self._end += self._corrections.popleft()[1]
        return Segment(text, self._end)


def _places(text: str) -> Iterator[int]:
    """Where a text may be cut, the best place first."""
    yield from _backwards(text, "\n", 1)
    yield from _backwards(text, " ", 0)
    yield from _backwards(text, "\n", 0)
    yield from range(len(text), max(0, len(text) - _TRIES), -1)


def _backwards(text: str, mark: str, behind: int) -> Iterator[int]:
    """The last places right before or right ``behind`` a mark."""
    at = len(text)
    for _ in range(_TRIES):
        at = text.rfind(mark, 1 - behind, at)
        if at < 0:
            return
        yield at + behind
