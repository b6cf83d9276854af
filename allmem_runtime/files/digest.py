"""The SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from allmem_runtime.errors import ModelFileError


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in blocks, as lower-case hexadecimal digits.

    Raises:
        ModelFileError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the path and permissions."
        ) from None
