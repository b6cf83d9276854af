"""Standard error that may go away: what is told there must not end what is told of."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO, cast


def unfailing(stream: TextIO) -> TextIO:
    """The same stream, which never raises because nobody reads it or its disk is full."""
    return cast(TextIO, _UnfailingStream(stream))


class _UnfailingStream(io.TextIOBase):
    """Writes to a stream while it takes anything, and to nowhere once it is closed or full.

    Args:
        stream: where text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """Of the stream."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """The number of characters, whether anybody gets them or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what a buffer holds."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Of the stream."""
        return self._stream.fileno()
