"""Standard streams that may go away or be full.

What is told on standard error must not end what is told of; what cannot be written to standard
output is an error with a name.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO, cast

from allmem_runtime.errors import StorageError


def open_closed() -> None:
    """Give each standard stream that was closed a null device.

    Otherwise the next file that is opened, a session for example, would get its number, and
    whatever a library prints would be written into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, _opened(number, mode))


def _opened(number: int, mode: str) -> TextIO:
    opened = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as we run
    return cast(TextIO, opened)


def unfailing(stream: TextIO) -> TextIO:
    """The same stream, which never raises because nobody reads it or its disk is full."""
    return cast(TextIO, _UnfailingStream(stream))


def telling(stream: TextIO) -> TextIO:
    """The same stream, which says by name that it cannot be written to.

    It raises StorageError where the operating system refuses to write, and BrokenPipeError where
    nobody reads any more.
    """
    return cast(TextIO, _TellingStream(stream))


class _Stream(io.TextIOBase):
    """What both have in common.

    Args:
        stream: where text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """Of the stream."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Of the stream."""
        return self._stream.fileno()

    @property
    def buffer(self) -> BinaryIO:
        """What takes bytes."""
        return self._stream.buffer


class _UnfailingStream(_Stream):
    """Writes while the stream takes anything, and to nowhere once it is closed or full."""

    def write(self, text: str) -> int:
        """The number of characters, whether anybody gets them or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what a buffer holds."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _TellingStream(_Stream):
    """Raises errors of ours."""

    def write(self, text: str) -> int:
        """The number of characters."""
        with _named():
            return self._stream.write(text)

    def flush(self) -> None:
        """Hand on what a buffer holds."""
        with _named():
            self._stream.flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            f"Standard output cannot be written: {error.strerror or error}.",
            "Make room, or send it elsewhere.",
        ) from None
