"""A lock between processes that goes away with the process that holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allmem_runtime.errors import StorageError


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the body runs.

    Args:
        path: the lock's file; it stays, empty.
        what: what is done under it, for the message, such as ``preparing the model``.

    Raises:
        StorageError: another process has it.
        OSError: the file cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _take(handle):
            raise StorageError(
                f"Another process is {what} ({path} is locked).", "Wait until it is done."
            )
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
