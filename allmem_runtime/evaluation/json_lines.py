"""Files of JSON lines that grow one by one; a kill leaves half a line at most, at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from allmem_runtime.errors import StorageError, UsageError


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add a line; it is on the disk when this returns.

    Raises:
        StorageError: writing failed; what was there before is intact.
    """
    try:
        with path.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{path} could not be written ({error.strerror}).",
            "Make room, and run the same command again: it goes on from here.",
        ) from None


def take_lines(
    path: Path,
    begin: bytes,
    take: Callable[[int, bytes], None],
    foreign: Callable[[int], UsageError],
) -> None:
    """Read a file line by line, then cut off the half line that a kill left.

    Args:
        path: the file; one that is missing has no lines.
        begin: how the first line of our files begins.
        take: told the number, from 1, and each line; it refuses a file of others before anything
            is cut.
        foreign: what is wrong with a line that is not ours, by its number.

    Raises:
        UsageError: the file holds half a first line that is not ours.
        StorageError: it cannot be read.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        rest = data[len(whole) :]
        for number, line in enumerate(whole.split(b"\n")[:-1], 1):
            take(number, line)
        if not whole and not rest.startswith(begin[: len(rest)]):
            raise foreign(1)
        if rest:
            with path.open("r+b") as file:
                file.truncate(len(whole))
    except OSError as error:
        raise StorageError(f"{path} cannot be used ({error.strerror}).", "Name another.") from None
