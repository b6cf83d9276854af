"""What is said where the text beside a session cannot be read or written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from allmem_runtime.errors import PassagesBusyError, PassagesError, StorageError
from allmem_runtime.passages import schema

_LOST = "Questions are answered from the state alone; read the document again to have its text."
_BUSY = "Until it can be used, questions are answered from the state alone."


def damaged(path: Path | None) -> PassagesError:
    """The tables hold what they cannot hold."""
    return PassagesError(f"The text {path or 'of the session'} is damaged.", _LOST)


def unreadable(path: Path | None, error: Exception) -> PassagesError:
    """Reading failed; a file that is only in use is told apart from one that is lost."""
    reason = "it is damaged" if isinstance(error, UnicodeDecodeError) else str(error)
    message = f"The text {path or 'of the session'} cannot be used: {reason}."
    if isinstance(error, sqlite3.OperationalError) and path is not None and path.exists():
        return PassagesBusyError(message, _BUSY)
    return PassagesError(message, _LOST)


def unwritable(path: Path | None, error: Exception) -> StorageError:
    """Writing failed."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return StorageError(
        f"The text {path or 'of the session'} could not be written: {reason}.",
        "Make room on the disk, or leave the text out with --no-text.",
    )


def check_may_replace(path: Path) -> None:
    """Refuse to replace what was not written as a text.

    Raises:
        StorageError: something else is there.
    """
    if path.is_symlink() or (path.exists() and not schema.is_ours(path)):
        raise StorageError(
            f"{path} is in the way of the session's text.", "Remove it, or rename it."
        )
