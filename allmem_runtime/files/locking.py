"""A lock between processes that goes away with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allmem_runtime.errors import StorageError

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
"""A lock's file that is a link is refused: it would be made where the link leads."""


@contextmanager
def only_one(
    path: Path, what: str, *, hint: str = "Wait until it is done.", leave: bool = True
) -> Iterator[None]:
    """Hold a lock while the body runs.

    Args:
        path: the lock's file; empty.
        what: what is done under it, for the message, such as ``preparing the model``.
        hint: what to do where another process has it.
        leave: let the file stay afterwards. One that a killed process left is no lock.

    Raises:
        StorageError: another process has it.
        OSError: the file cannot be made, or locks nothing in this place.
    """
    handle = _locked(path)
    if handle is None:
        raise StorageError(f"Another process is {what} ({path} is locked).", hint)
    try:
        yield
    finally:
        # Unlocked first, it could be taken by somebody and then deleted; Windows deletes no file
        # that is open, which comes to the same.
        if not leave and os.name == "posix" and is_at(path, handle):
            path.unlink(missing_ok=True)
        os.close(handle)
        if not leave and os.name != "posix":
            with contextlib.suppress(OSError):
                path.unlink()


def _locked(path: Path) -> int | None:
    """The open file, locked; None if another process has the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o600)
        try:
            taken = lock(handle)
        except OSError:
            os.close(handle)
            raise
        if taken and is_at(path, handle):
            return handle
        os.close(handle)
        if not taken:
            return None
        # Who had it deleted it after it was opened here: a lock on it would keep nobody out.


def is_at(path: Path, handle: int) -> bool:
    """Whether an open file is still the one of this name."""
    if os.name != "posix":
        return True  # an open file cannot be deleted
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def lock(handle: int) -> bool:
        """Lock an open file while it stays open; False if another process has it."""
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def lock(handle: int) -> bool:
        """Lock an open file while it stays open; False if another process has it.

        Raises:
            OSError: the file system has no locks.
        """
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
