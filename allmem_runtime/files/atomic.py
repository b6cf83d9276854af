"""Writing a file so that its name stands for the old content or the new, never anything between."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.errors import StorageError


def replace(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write to a temporary file beside ``path``, make sure it is on the disk, rename it.

    Args:
        path: the file to make or replace; only its owner may read it.
        write: writes the content.

    Raises:
        StorageError: writing failed; what was at ``path`` is unharmed.
    """
    temporary: Path | None = None
    try:
        # mkstemp gives mode 0600: a session tells what was read.
        handle, name = tempfile.mkstemp(".tmp", f".{path.name[:64]}.", path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        hint = "Make room on the disk, or save elsewhere." if full else "Check the folder."
        raise StorageError(f"{path} could not be written: {reason}.", hint) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the rename itself on the disk; where folders cannot be opened there is nothing to do."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
