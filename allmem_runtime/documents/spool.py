"""The texts of all documents in one file without a name, as few files can be open at once."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from allmem_runtime.errors import StorageError
from allmem_runtime.text.blocks import BLOCK_BYTES


class Spool:
    """A temporary file that texts are added to; it is gone with the last who holds it.

    Raises:
        StorageError: there is no room for it, as all its methods do.
    """

    def __init__(self) -> None:
        self._file = temporary_file()
        self._lock = threading.Lock()
        self._end = 0

    def add(self, text: IO[bytes]) -> int:
        """Add a text.

        Args:
            text: all of this file.

        Returns:
            The byte at which it begins here.
        """
        with self._lock, storing():
            start = at = self._end
            text.seek(0)
            self._file.seek(at)
            while piece := text.read(BLOCK_BYTES):
                self._file.write(piece)
                at += len(piece)
            self._file.flush()
            self._end = at
            return start

    def read(self, start: int, count: int) -> bytes:
        """Bytes from ``start`` on, ``count`` at most."""
        with self._lock, storing():
            self._file.seek(start)
            return self._file.read(count)


_in_use: weakref.ReferenceType[Spool] | None = None
_choosing = threading.Lock()


def shared_spool() -> Spool:
    """The spool of the process, while somebody holds it; else a new one."""
    global _in_use
    with _choosing:
        spool = _in_use() if _in_use is not None else None
        if spool is None:
            spool = Spool()
            _in_use = weakref.ref(spool)
        return spool


def temporary_file() -> IO[bytes]:
    """A file without a name.

    Raises:
        StorageError: there is no room for it.
    """
    with storing():
        return tempfile.TemporaryFile()


@contextmanager
def storing() -> Iterator[None]:
    """Tells what goes wrong with temporary files.

    Raises:
        StorageError: says what.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The text of documents cannot be kept in a temporary file: {error.strerror or error}.",
            "Make room there, or name another folder for such files with TMPDIR.",
        ) from None
