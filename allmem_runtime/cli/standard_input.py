"""Standard input as a source: whether somebody gave it, and a word where nothing comes of it."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable
from typing import BinaryIO, TextIO, cast

SILENCE_SECONDS = 4.0
"""How long nothing comes before it is said that standard input is waited for."""

_WAITING = (
    "Waiting for standard input, of which nothing has come yet. Ctrl-C ends it; a SOURCE that is "
    "named is read instead."
)


def unbuffered(stream: TextIO) -> BinaryIO:
    """Standard input without a buffer.

    A thread that waits inside Python's own buffer would abort the interpreter when it exits.
    """
    try:
        return open(os.dup(stream.fileno()), "rb", buffering=0)
    except (OSError, ValueError):
        return stream.buffer


def was_given(stdin: BinaryIO) -> bool:
    """Whether somebody gave it on purpose: it is a pipe, or a file that nobody has begun to read.

    In a shell's loop over the lines of a file, standard input stands within that file.
    """
    kind = _kind(stdin)
    return stat.S_ISFIFO(kind) or (stat.S_ISREG(kind) and stdin.tell() == 0)


def has_text(stdin: BinaryIO) -> bool:
    """Whether it was given and something of it can be read now, without reading it."""
    if not was_given(stdin):
        return False
    if stat.S_ISREG(_kind(stdin)):
        return os.fstat(stdin.fileno()).st_size > 0
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(stdin, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))


def _kind(stdin: BinaryIO) -> int:
    try:
        return os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError):
        return 0


def announced(stdin: BinaryIO, tell: Callable[[str], None]) -> BinaryIO:
    """The same input, which says once that it is waited for if nothing comes of it.

    Args:
        stdin: where the bytes come from.
        tell: told after ``SILENCE_SECONDS``; called in another thread.
    """
    return cast(BinaryIO, _AnnouncedInput(stdin, tell))


class _AnnouncedInput:
    def __init__(self, stdin: BinaryIO, tell: Callable[[str], None]) -> None:
        self._stdin = stdin
        self._tell = tell
        self._came = False

    def read(self, size: int) -> bytes | None:
        """As the stream gives them: at most this many bytes, fewer where it has fewer."""
        if self._came:
            return self._read(size)
        timer = threading.Timer(SILENCE_SECONDS, self._tell, [_WAITING])
        timer.daemon = True
        timer.start()
        try:
            self._came = True
            return self._read(size)
        finally:
            timer.cancel()

    def _read(self, size: int) -> bytes | None:
        read: Callable[[int], bytes | None] = getattr(self._stdin, "read1", self._stdin.read)
        return read(size)
