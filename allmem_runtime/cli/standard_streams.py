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
from allmem_runtime.printable import for_terminal


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
    """The same stream, which never raises because nobody reads it or its disk is full.

    All that is written to it is for people, so no control character passes.
    """
    return cast(TextIO, _UnfailingStream(stream))


def telling(stream: TextIO) -> TextIO:
    """The same stream, which says by name that it cannot be written to.

    It raises StorageError where the operating system refuses to write, and BrokenPipeError where
    nobody reads any more. A terminal gets no control characters; files and pipes get all.
    """
    return cast(TextIO, _TellingStream(stream))


def drawing(stream: TextIO) -> TextIO:
    """The same stream for who draws on its terminal and makes what is quoted printable himself."""
    return cast(TextIO, stream.drawing()) if isinstance(stream, _UnfailingStream) else stream


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
    """Writes while the stream takes anything, and to nowhere once it is closed or full.

    Args:
        stream: where text goes.
        clean: let no control character pass.
    """

    def __init__(self, stream: TextIO, clean: bool = True) -> None:
        super().__init__(stream)
        self._clean = clean

    def drawing(self) -> _UnfailingStream:
        """One that lets all pass."""
        return _UnfailingStream(self._stream, clean=False)

    def write(self, text: str) -> int:
        """The number of characters, whether anybody gets them or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(for_terminal(text) if self._clean else text)
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
            self._stream.write(for_terminal(text) if self.isatty() else text)
        return len(text)

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
