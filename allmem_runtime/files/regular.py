"""Opening what must be a regular file: another kind, such as a named pipe, would wait for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading.

    Raises:
        OSError: it cannot be opened, or is of another kind.
        ValueError: the path holds a NUL.
    """
    file = open(  # noqa: SIM115 - whoever asked for it closes it
        path, "rb", opener=lambda name, flags: os.open(name, flags | _WITHOUT_WAITING)
    )
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return cast(BinaryIO, file)
